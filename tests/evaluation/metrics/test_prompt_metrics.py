"""Modifier Jaccard, artist accuracy, repetition and length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.evaluation.metrics.artist_accuracy import artist_accuracy
from unprompt.evaluation.metrics.fragments import artists_of, fragment_key, fragments_of, modifiers_of
from unprompt.evaluation.metrics.length import length
from unprompt.evaluation.metrics.modifier_jaccard import modifier_jaccard
from unprompt.evaluation.metrics.repetition import repeated_share, repetition
from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.pictures.names import name_keys

MONET = "portrait of a cat by Claude Monet, oil on canvas"


def test_what_a_prompt_says() -> None:
    assert fragments_of(MONET) == {"portrait of a cat", "claude monet", "oil on canvas"}
    assert modifiers_of(MONET) == {"claude monet", "oil on canvas"}
    assert artists_of(MONET) == {"claude monet"}
    assert modifiers_of("style of H.R. Giger, woman") == {"hr giger"}
    assert modifiers_of("") == fragments_of(" , ") == frozenset()
    assert fragment_key("by H. R. Giger") == fragment_key("hr giger")


def test_modifier_jaccard_by_hand() -> None:
    scores = modifier_jaccard(
        ["a dog, digital art, by Claude Monet", "a cat", "a cat", MONET.upper()],
        [MONET, MONET, "a dog", MONET],
    )
    assert scores.values is not None
    assert scores.values.tolist() == pytest.approx([1 / 3, 0, 1, 1])


@given(st.lists(st.sampled_from(["oil on canvas", "by Monet", "8k", "by H. R. Giger"]), max_size=5))
def test_modifier_jaccard_is_symmetric_and_does_not_see_order(fragments: list[str]) -> None:
    prompt, other = ", ".join(["a dog", *fragments]), ", ".join(["a dog", *fragments[::-1]])
    assert modifier_jaccard([prompt], [other]).corpus == 1
    left, right = modifier_jaccard([prompt], [MONET]).corpus, modifier_jaccard([MONET], [prompt]).corpus
    assert left == right
    assert 0 <= left <= 1


def test_artist_accuracy_by_hand() -> None:
    scores = artist_accuracy(
        ["a dog by Claude Monet", "a dog by Monet", "a cat", "a cat by Banksy", "style of Banksy, 8k"],
        [MONET, MONET, MONET, "a dog", "a cat by Banksy and Alphonse Mucha"],
    )
    assert scores.values is not None
    assert np.array_equal(scores.values, [1, 0, 0, np.nan, 0.5], equal_nan=True)
    assert scores.corpus == 1.5 / 4
    assert "the 4 references" in scores.note


def test_known_artists_tell_where_names_end() -> None:
    reference, candidate = "a cat by magritte and dali", "a cat by dali, 8k"
    known = name_keys(["Magritte", "Dali"])
    assert artist_accuracy([candidate], [reference], artists=known).corpus == 0.5
    assert modifier_jaccard([candidate], [reference], artists=known).corpus == pytest.approx(1 / 3)


def test_no_reference_credits_an_artist() -> None:
    assert np.isnan(artist_accuracy(["a cat"], ["a cat"]).corpus)


def test_repetition_by_hand() -> None:
    # a-b, b-a, a-b, b-a, a-b: two distinct of five.
    scores = repetition(["A b, a b a b", "a b c", "word", ""], ["", "", "", ""])
    assert scores.name == "repetition-2"
    assert scores.values is not None
    assert scores.values.tolist() == pytest.approx([3 / 5, 0, 0, 0])
    assert repetition(["a a a a"], [""], n=1).corpus == 3 / 4
    assert "1 of 2 candidates are distinct" in repetition(["x", "x"], ["", ""]).note
    with pytest.raises(EvaluationError, match="use 1 or more"):
        repetition(["a"], ["a"], n=0)


@given(st.lists(st.sampled_from("abc")), st.integers(1, 4))
def test_repetition_is_none_without_and_grows_with_copies(tokens: list[str], n: int) -> None:
    assert 0 <= repeated_share(tokens, n) < 1
    distinct = [str(i) for i in range(len(tokens))]
    assert repeated_share(distinct, n) == 0
    assert repeated_share(distinct * 3, n) >= (0.5 if len(distinct) > 2 * n else 0)


def test_length() -> None:
    scores = length(["a cat, 8k", "", "one"], ["a b", "c", "d e f"])
    assert scores.values is not None
    assert scores.values.tolist() == [3, 0, 1]
    assert scores.corpus == pytest.approx(4 / 3)
    assert "2.00" in scores.note
