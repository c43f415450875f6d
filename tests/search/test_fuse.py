from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.search.fuse import RRF_K, reciprocal_rank_fusion

rankings = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), max_size=4)


def exact_scores(lists: list[list[str]], k: int) -> dict[str, Fraction]:
    """The formula of the paper, normalised, in exact arithmetic."""
    filled = [ranking for ranking in lists if ranking]
    items = {item for ranking in filled for item in ranking}
    best = Fraction(len(filled), k + 1)
    return {
        item: sum((Fraction(1, k + ranking.index(item) + 1) for ranking in filled if item in ranking), Fraction())
        / best
        for item in items
    }


def test_scores_worked_by_hand() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["b", "d"]], k=1)
    # b: (1/3 + 1/2) of at most 1/2 + 1/2; a: 1/2; d: 1/3; c: 1/4.
    assert [item for item, _ in fused] == ["b", "a", "d", "c"]
    assert [score for _, score in fused] == pytest.approx([5 / 6, 1 / 2, 1 / 3, 1 / 4])


def test_the_constant_is_that_of_the_paper() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b"]]))
    assert RRF_K == 60
    assert fused["a"] == pytest.approx(1 / 2)
    assert fused["b"] == pytest.approx((61 / 62 + 1) / 2)


@given(rankings, st.sampled_from([0, 1, 60]))
def test_agrees_with_exact_arithmetic(lists: list[list[str]], k: int) -> None:
    fused = reciprocal_rank_fusion(lists, k)
    exact = exact_scores(lists, k)
    assert {item for item, _ in fused} == set(exact)
    assert len(fused) == len(exact)
    for item, score in fused:
        assert 0.0 < score <= 1.0
        assert score == pytest.approx(float(exact[item]), rel=1e-12)
    for (better, _), (worse, _) in pairwise(fused):
        assert exact[better] >= exact[worse] - Fraction(1, 10**12)


@given(rankings, st.permutations(range(4)))
def test_scores_do_not_depend_on_the_order_of_the_rankings(lists: list[list[str]], order: list[int]) -> None:
    shuffled = [lists[i] for i in order if i < len(lists)]
    assert dict(reciprocal_rank_fusion(lists)) == dict(reciprocal_rank_fusion(shuffled))


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.integers(1, 3))
def test_agreeing_rankings_are_kept(ranking: list[str], times: int) -> None:
    assert [item for item, _ in reciprocal_rank_fusion([ranking] * times)] == ranking


def test_ties_go_to_the_better_rank_then_to_the_earlier_ranking() -> None:
    assert [item for item, _ in reciprocal_rank_fusion([["x", "y"], ["z", "w"]])] == ["x", "z", "y", "w"]
    # Of a (1st and 2nd) and b (2nd and 1st), the first ranking's first leads.
    assert [item for item, _ in reciprocal_rank_fusion([["b", "a"], ["a", "b"]])] == ["b", "a"]
    # With k=0, q has 1/2 + 1/2, the same as p and r, which were first somewhere.
    assert [item for item, _ in reciprocal_rank_fusion([["p", "q"], ["r", "q"]], k=0)] == ["p", "r", "q"]


def test_a_repeated_item_counts_at_its_first_place() -> None:
    assert reciprocal_rank_fusion([["a", "a", "b"]], k=0) == [("a", 1.0), ("b", 1 / 3)]


def test_empty_rankings_do_not_count() -> None:
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []
    assert reciprocal_rank_fusion([["a"], []]) == [("a", 1.0)]


def test_a_negative_constant_is_refused() -> None:
    with pytest.raises(ValueError, match="is -1"):
        reciprocal_rank_fusion([["a"]], k=-1)
