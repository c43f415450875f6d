"""The first stage: what of a library is near a query, as hits with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from unprompt.search.fuse import reciprocal_rank_fusion
from unprompt.search.results import Neighbour, RankedPrompt
from unprompt.types import Embeddings, Hit

if TYPE_CHECKING:
    from unprompt.backends.local import LocalLibrary
    from unprompt.backends.protocol import SearchBackend
    from unprompt.index.library import Library
    from unprompt.index.where import Where


def as_backend(library: Library | SearchBackend) -> SearchBackend:
    """An open library as a backend; backends as they are."""
    from unprompt.backends.local import LocalLibrary

    return LocalLibrary(cast("Library", library)) if hasattr(library, "image_index") else library


def local_library(library: Library | SearchBackend) -> LocalLibrary | None:
    """The backend of a library that is on this machine, None for others: it alone knows rows."""
    from unprompt.backends.local import LocalLibrary

    backend = as_backend(library)
    return backend if isinstance(backend, LocalLibrary) else None


def retrieve_neighbours(
    library: Library | SearchBackend, queries: Embeddings, k: int, where: Where | None = None
) -> list[list[Neighbour]]:
    """Finds for each of (Q, D) queries the up to k nearest pictures, of those that match `where`, nearest first."""
    local = local_library(library)
    if local is None:
        return [
            [Neighbour(Hit(record.id, score, rank), record) for rank, (record, score) in enumerate(hits, start=1)]
            for hits in as_backend(library).pictures(queries, k, where)
        ]
    return [
        [Neighbour(Hit(record.id, score, rank, row), record) for rank, (record, score, row) in enumerate(hits, start=1)]
        for hits in local.located_pictures(queries, k, where)
    ]


def retrieve_prompts(
    library: Library | SearchBackend, queries: Embeddings, k: int, where: Where | None = None
) -> list[list[Hit]]:
    """Finds for each of (Q, D) queries the up to k distinct prompts whose text is nearest; a hit's id is its prompt.

    With `where` they are those of the pictures that match; prompts without pictures are then left out.
    """
    local = local_library(library)
    if local is None:
        found = as_backend(library).prompts(queries, k, where)
        return [[Hit(prompt, score, rank) for rank, (prompt, score) in enumerate(hits, start=1)] for hits in found]
    return [
        [Hit(prompt, score, rank, row) for rank, (prompt, score, row) in enumerate(hits, start=1)]
        for hits in local.located_prompts(queries, k, where)
    ]


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
