"""Recall@k, MRR and nDCG@k on hand-worked rankings, and against naive versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.evaluation.metrics.mrr import mrr, reciprocal_rank
from unprompt.evaluation.metrics.ndcg import ndcg, ndcg_at
from unprompt.evaluation.metrics.recall import recall, recall_at
from unprompt.evaluation.metrics.scores import EvaluationError

PROMPTS = [["a cat", "A dog!", "a dog"], ["x", "y"], []]
REFERENCES = ["dog, a", "z", "z"]


def test_prompts_by_hand() -> None:
    assert recall(PROMPTS, REFERENCES, k=1).values.tolist() == [0, 0, 0]
    assert recall(PROMPTS, REFERENCES, k=2).values.tolist() == [1, 0, 0]
    assert recall(PROMPTS, REFERENCES, k=2).name == "recall@2"
    assert mrr(PROMPTS, REFERENCES).values.tolist() == [1 / 2, 0, 0]
    # The second dog is no second find.
    assert ndcg(PROMPTS, REFERENCES, k=3).values.tolist() == pytest.approx([1 / math.log2(3), 0, 0])


def test_fragments_by_hand() -> None:
    reference = "portrait of a cat by Claude Monet, oil on canvas"
    ranking = ["claude monet", "digital art", "Oil on Canvas", "8k"]
    assert recall([ranking], [reference], k=3, ranked="fragments").corpus == pytest.approx(2 / 3)
    assert mrr([ranking], [reference], ranked="fragments").corpus == 1
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    scores = ndcg([ranking], [reference], k=4, ranked="fragments")
    assert scores.corpus == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert scores.name == "fragment-ndcg@4"


@pytest.mark.parametrize("metric", [recall, mrr, ndcg])
def test_nothing_relevant_is_no_verdict(metric: object) -> None:
    scores = metric([["8k"], ["8k"]], [", ,", "a dog, 8k"], ranked="fragments")  # type: ignore[operator]
    assert np.isnan(scores.values[0])
    assert scores.corpus == scores.values[1] > 0


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 4), st.integers(1, 14))
def test_against_naive_versions(hits: list[bool], unranked: int, k: int) -> None:
    array, total = np.array(hits, dtype=bool), sum(hits) + unranked
    if not total:
        assert math.isnan(recall_at(array, 0, k))
        assert math.isnan(ndcg_at(array, 0, k))
        return
    assert recall_at(array, total, k) == pytest.approx(sum(hits[:k]) / total)
    gains = [1 / math.log2(rank + 2) for rank, hit in enumerate(hits[:k]) if hit]
    ideal = [1 / math.log2(rank + 2) for rank in range(min(k, total))]
    assert ndcg_at(array, total, k) == pytest.approx(sum(gains) / sum(ideal))
    assert reciprocal_rank(array) == (1 / (hits.index(True) + 1) if any(hits) else 0)


def test_bad_arguments_are_one_line() -> None:
    for function in (recall, ndcg):
        with pytest.raises(EvaluationError, match="use a cutoff of 1 or more"):
            function([["a"]], ["a"], k=0)
    with pytest.raises(EvaluationError, match="use one of prompts, fragments"):
        mrr([["a"]], ["a"], ranked="words")
    with pytest.raises(EvaluationError, match="got the text 'a cat' instead of a ranking"):
        mrr(["a cat"], ["a cat"])
    with pytest.raises(EvaluationError, match="1 candidates and 2 references"):
        recall([["a"]], ["a", "b"])
