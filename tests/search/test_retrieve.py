from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from fakes import normalise
from unprompt.index.hits import search_rows
from unprompt.index.vector_index import VectorIndex
from unprompt.search.results import Neighbour
from unprompt.search.retrieve import (
    nearest_by_prompt,
    rank_prompts,
    retrieve_neighbours,
    retrieve_prompts,
)
from unprompt.types import Embeddings, Hit, Record


def random_rows(count: int, dim: int = 8, seed: int = 0) -> Embeddings:
    return normalise(np.random.default_rng(seed).standard_normal((count, dim)))


class PaddedIndex:
    """An approximate index that finds fewer rows than asked for, out of order on ties."""

    def __len__(self) -> int:
        return 10

    def search(self, queries: Embeddings, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(queries), k), -3e38, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        scores[:, :4] = [1.0001, 0.5, 0.5, 0.25]
        rows[:, :4] = [7, 9, 3, 1]
        return scores, rows


def neighbour(identity: str, prompt: str, score: float, rank: int, sha256: str = "") -> Neighbour:
    return Neighbour(Hit(identity, score, rank), Record(identity, prompt, f"{identity}.png", {"sha256": sha256}))


def library(pictures: int = 0, prompts: int = 0, read: list[Sequence[int]] | None = None) -> SimpleNamespace:
    """What retrieval sees of a library: two pictures share each prompt."""

    def index(rows: int, seed: int) -> VectorIndex | None:
        return VectorIndex.build(lambda: iter([random_rows(rows, seed=seed)]), rows, 8, "Flat") if rows else None

    def records(rows: Sequence[int]) -> list[Record]:
        if read is not None:
            read.append(rows)
        return [Record(f"id{row}", f"prompt {row // 2}") for row in rows]

    return SimpleNamespace(
        image_index=index(pictures, 1),
        prompt_index=index(prompts, 2),
        lazy_records=records,
        prompts=lambda rows: [(f"prompt {row}", 1) for row in rows],
    )


def test_padding_is_dropped_ties_go_by_row_and_cosines_stay_in_range() -> None:
    found = search_rows(PaddedIndex(), random_rows(2), 8)  # type: ignore[arg-type]
    assert found == [[(7, 1.0), (3, 0.5), (9, 0.5), (1, 0.25)]] * 2


def test_a_missing_index_finds_nothing() -> None:
    assert search_rows(None, random_rows(3), 5) == [[], [], []]
    assert search_rows(PaddedIndex(), random_rows(0), 5) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 7, 40, 1000])
def test_neighbours_are_those_of_a_full_sort(k: int) -> None:
    read: list[Sequence[int]] = []
    rows, queries = random_rows(40, seed=1), random_rows(6, seed=3)
    found = retrieve_neighbours(library(pictures=40, read=read), queries, k)  # type: ignore[arg-type]
    for query, neighbours in zip(queries, found, strict=True):
        scores = rows @ query
        best = np.argsort(-scores, kind="stable")[:k]
        assert [n.hit.id for n in neighbours] == [f"id{row}" for row in best]
        assert [n.hit.score for n in neighbours] == pytest.approx(scores[best].tolist(), abs=1e-6)
        assert [n.hit.rank for n in neighbours] == list(range(1, len(best) + 1))
        assert [n.record.prompt for n in neighbours] == [f"prompt {row // 2}" for row in best]
    assert len(read) == 1, "the records of a batch are read in one go"
    assert list(read[0]) == sorted(set(read[0]))


def test_prompts_near_a_picture_are_those_of_a_full_sort() -> None:
    rows, queries = random_rows(30, seed=2), random_rows(4, seed=3)
    found = retrieve_prompts(library(prompts=30), queries, 5)  # type: ignore[arg-type]
    for query, hits in zip(queries, found, strict=True):
        assert [hit.id for hit in hits] == [f"prompt {row}" for row in np.argsort(-(rows @ query))[:5]]
        assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]


def test_a_library_without_pictures_or_prompts_finds_none() -> None:
    queries = random_rows(2)
    assert retrieve_neighbours(library(prompts=3), queries, 5) == [[], []]  # type: ignore[arg-type]
    assert retrieve_prompts(library(pictures=3), queries, 5) == [[], []]  # type: ignore[arg-type]


def test_distinct_prompts_keep_their_nearest_neighbour() -> None:
    nearest = nearest_by_prompt([neighbour("a", "p", 0.9, 1), neighbour("b", "q", 0.8, 2), neighbour("c", "p", 0.7, 3)])
    assert [(prompt, found.hit.id) for prompt, found in nearest.items()] == [("p", "a"), ("q", "b")]


def test_prompts_name_all_their_evidence() -> None:
    neighbours = [neighbour("a", "p", 0.9, 1), neighbour("b", "q", 0.8, 2), neighbour("c", "q", 0.7, 3)]
    ranked = rank_prompts(neighbours, [Hit("q", 0.3, 1), Hit("r", 0.2, 2)])
    assert [(prompt.prompt, prompt.source) for prompt in ranked] == [
        ("q", "neighbour:b+prompts"),
        ("p", "neighbour:a"),
        ("r", "prompts"),
    ]
    assert [prompt.score for prompt in ranked] == pytest.approx([(61 / 62 + 1) / 2, 1 / 2, 61 / 62 / 2])


def test_the_prompt_of_the_very_file_leads() -> None:
    neighbours = [neighbour("a", "good", 1.0, 1, "f0"), neighbour("b", "true", 1.0, 2, "c0ffee")]
    near = [Hit("good", 0.5, 1)]
    assert [prompt.prompt for prompt in rank_prompts(neighbours, near)] == ["good", "true"]
    ranked = rank_prompts(neighbours, near, "c0ffee")
    assert [(prompt.prompt, prompt.score) for prompt in ranked] == [("true", 1.0), ("good", 1.0)]


def test_no_evidence_ranks_nothing() -> None:
    assert rank_prompts([], []) == []
