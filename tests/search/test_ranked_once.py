from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder, colour_picture
from unprompt.errors import QueryError
from unprompt.index.library import Library
from unprompt.search.engine import Engine
from unprompt.search.product import product_of
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranked_once import RankedOnce
from unprompt.search.ranker import FragmentRanker
from unprompt.search.settings import Settings
from unprompt.types import Embeddings


class Counting(FragmentRanker):
    """Counts the queries that it ranks."""

    ranked = 0

    def per_kind(self, queries: Embeddings, k: int):  # type: ignore[no-untyped-def]
        Counting.ranked += len(queries)
        return super().per_kind(queries, k)


def test_each_query_is_ranked_once_and_as_ever(library: Library, encoder: FakeEncoder) -> None:
    ranker = Counting(library.vocabulary)
    once, queries = RankedOnce(ranker), encoder.encode_texts(["red", "blue whale", "red"])
    Counting.ranked = 0
    assert once.per_kind(queries, 2) == FragmentRanker(library.vocabulary).per_kind(queries, 2)
    assert Counting.ranked == 2
    assert once.per_kind(queries[::-1], 2) == FragmentRanker(library.vocabulary).per_kind(queries[::-1], 2)
    assert Counting.ranked == 2
    assert once.per_kind(queries, 1) == FragmentRanker(library.vocabulary).per_kind(queries, 1)
    assert Counting.ranked == 4
    assert once.per_kind(queries[:0], 2) == []


@pytest.mark.parametrize("options", [RankOptions(), RankOptions(collapse=0.5), RankOptions(diversity=0.5)])
def test_fewer_come_from_the_ranking_of_more_unless_they_are_to_differ(
    library: Library, encoder: FakeEncoder, options: RankOptions
) -> None:
    ranker, queries = Counting(library.vocabulary, options), encoder.encode_texts(["red", "blue whale"])
    once = RankedOnce(ranker, depth=4)
    Counting.ranked = 0
    plain = FragmentRanker(library.vocabulary, options)
    assert [once.per_kind(queries, k) for k in (2, 4, 1)] == [plain.per_kind(queries, k) for k in (2, 4, 1)]
    assert Counting.ranked == (2 if options.diversity is None else 6)


def test_callers_do_not_share_what_they_get(library: Library, encoder: FakeEncoder) -> None:
    once, query = RankedOnce(FragmentRanker(library.vocabulary)), encoder.encode_texts(["red"])
    once.per_kind(query, 2)[0].clear()
    assert once.per_kind(query, 2)[0]


def test_all_else_is_the_rankers(library: Library, encoder: FakeEncoder) -> None:
    ranker = FragmentRanker(library.vocabulary)
    once, query = RankedOnce(ranker), encoder.encode_texts(["red"])
    assert once.vocabulary is library.vocabulary
    assert once.merged(query, 3) == ranker.merged(query, 3)
    with pytest.raises(QueryError, match="numbers each"):
        once.per_kind(np.zeros((1, 3), dtype=np.float32), 2)


def test_a_default_answer_ranks_a_picture_once(
    library: Library, encoder: FakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unprompt.search.engine.FragmentRanker", Counting)
    engine = Engine(library, encoder)
    Counting.ranked = 0
    engine.query(colour_picture(tmp_path / "red.png", "red", seed=999))
    assert Counting.ranked == 1


@pytest.mark.parametrize("options", [
    RankOptions(), RankOptions(collapse=0.95), RankOptions(kinds=("negative", "medium", "artist")),
    RankOptions(kinds=("negative",)), RankOptions(kinds=("flavor",), diversity=0.5),
])  # fmt: skip
def test_both_rankings_of_one_product_are_as_ever(
    library: Library, encoder: FakeEncoder, options: RankOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = encoder.encode_texts(["red", "blue whale"])
    ranker = FragmentRanker(library.vocabulary, options)
    apart = ranker.per_kind(queries, 3), ranker.merged(queries, 5)
    assert ranker.per_kind_and_merged(queries, 3, 5) == apart
    assert list(ranker.per_kind_and_merged(queries, 3, 5)[0][0]) == list(ranker.kinds)
    assert ranker.per_kind_and_merged(queries[:0], 3, 5) == ([], [])
    once = RankedOnce(ranker, merged=5)
    assert once.per_kind(queries, 3) == apart[0]
    products = []
    monkeypatch.setattr("unprompt.search.ranker.product_of", lambda _: products.append(1))
    assert once.merged(queries, 5) == apart[1]
    assert once.merged(queries[::-1], 5) == apart[1][::-1]
    monkeypatch.undo()
    assert once.merged(queries, 4) == ranker.merged(queries, 4)
    assert products == []


def test_a_fast_answer_takes_one_product(
    library: Library, encoder: FakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = []
    monkeypatch.setattr("unprompt.search.ranker.product_of", lambda of: (products.append(1), product_of(of))[1])
    [found] = Engine(library, encoder).query(colour_picture(tmp_path / "red.png", "red"), settings=Settings("fast"))
    assert found.final.prompt
    assert found.fragments
    assert products == [1]
