"""The first stage: what of a library is near a query, as hits with their prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from unprompt.search.fuse import reciprocal_rank_fusion
from unprompt.search.results import Neighbour, RankedPrompt
from unprompt.types import Embeddings, Hit

if TYPE_CHECKING:
    from unprompt.index.library import Library
    from unprompt.index.vector_index import VectorIndex

Value = TypeVar("Value")


def search_rows(index: VectorIndex | None, queries: Embeddings, k: int) -> list[list[tuple[int, float]]]:
    """Searches one index with (Q, D) queries for up to k (row, cosine) each, best first, equal ones by row.

    A missing or empty index finds nothing.
    """
    if index is None or not len(index) or not len(queries):
        return [[] for _ in queries]
    scores, rows = index.search(queries, min(k, len(index)))  # both (Q, k)
    found = []
    for query_scores, query_rows in zip(scores, rows, strict=True):
        order = np.lexsort((query_rows, -query_scores))
        # FAISS pads short results with row -1; half-precision rows have norms, and so cosines, a little above 1.
        cosines = query_scores.clip(-1.0, 1.0)
        found.append([(int(query_rows[i]), float(cosines[i])) for i in order if query_rows[i] >= 0])
    return found


def retrieve_neighbours(library: Library, queries: Embeddings, k: int) -> list[list[Neighbour]]:
    """Finds for each of (Q, D) queries the up to k nearest pictures of a library, nearest first."""
    found = search_rows(library.image_index, queries, k)
    records = _look_up(library.records, found)
    return [
        [Neighbour(Hit(records[row].id, score, rank), records[row]) for rank, (row, score) in enumerate(hits, start=1)]
        for hits in found
    ]


def retrieve_prompts(library: Library, queries: Embeddings, k: int) -> list[list[Hit]]:
    """Finds for each of (Q, D) queries the up to k distinct prompts whose text is nearest; a hit's id is its prompt."""
    found = search_rows(library.prompt_index, queries, k)
    prompts = _look_up(library.prompts, found)
    return [[Hit(prompts[row][0], score, rank) for rank, (row, score) in enumerate(hits, start=1)] for hits in found]


def same_picture(neighbours: Sequence[Neighbour], sha256: str | None) -> list[Neighbour]:
    """Those neighbours whose file is the query's file, by its sha256; none when the query is no file."""
    return [neighbour for neighbour in neighbours if sha256 and neighbour.record.metadata.get("sha256") == sha256]


def nearest_by_prompt(neighbours: Sequence[Neighbour]) -> dict[str, Neighbour]:
    """The distinct prompts of `neighbours` in their order, each with the nearest picture that it made."""
    nearest: dict[str, Neighbour] = {}
    for neighbour in neighbours:
        nearest.setdefault(neighbour.record.prompt, neighbour)
    return nearest


def rank_prompts(neighbours: Sequence[Neighbour], near: Sequence[Hit], sha256: str | None = None) -> list[RankedPrompt]:
    """Fuses one picture's two rankings of prompts: those of its neighbours, and those whose text is near it.

    A prompt that made this very file (`same_picture`) leads with score 1: there rank fusion would let a prompt that is
    merely good in both rankings overtake the true one.

    Returns:
        Every distinct prompt, best first.
    """
    nearest = nearest_by_prompt(neighbours)
    texts = [hit.id for hit in near]
    true = list(nearest_by_prompt(same_picture(neighbours, sha256)))
    fused = reciprocal_rank_fusion([list(nearest), texts])
    ranked = [(prompt, 1.0) for prompt in true] + [(prompt, score) for prompt, score in fused if prompt not in true]
    found = set(texts)
    return [RankedPrompt(prompt, score, _source(nearest.get(prompt), prompt in found)) for prompt, score in ranked]


def _source(neighbour: Neighbour | None, near: bool) -> str:
    if neighbour is None:
        return "prompts"
    return f"neighbour:{neighbour.hit.id}" + ("+prompts" if near else "")


def _look_up(
    read: Callable[[Sequence[int]], Sequence[Value]], found: Sequence[Sequence[tuple[int, float]]]
) -> dict[int, Value]:
    """Reads every row that any query found once, in ascending order, which is the order on disk."""
    rows = sorted({row for hits in found for row, _ in hits})
    return dict(zip(rows, read(rows), strict=True)) if rows else {}
