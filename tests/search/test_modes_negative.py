from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from compose_tasks import (
    DIM,
    Encoder,
    calibrated,
    compose,
    cosine,
    vocabulary_of,
)
from unprompt.search.ranker import FragmentRanker


def test_the_starting_similarity_is_negated_too() -> None:
    # All cosines are above zero, where a start that is not negated beats whatever comes after it.
    flavors = [f"flavor{i}" for i in range(30)]
    ranker = FragmentRanker(vocabulary_of({"flavor": flavors}))
    shown = [word for word in flavors for _ in range(3)]
    target = " ".join(shown)
    found = compose("negative", target, None, ranker=ranker)
    assert len(found.parts) == 1 or found.score < found.parts[0].score
    lowest = min(cosine(text, target) for text in flavors)
    assert found.score <= lowest + 1e-6
    apart = compose("negative", " ".join(flavors[:10]), None, ranker=ranker)
    assert len(apart.parts) > 1
    assert apart.score < apart.parts[0].score


def test_negative_takes_the_least_similar_flavors_to_the_last_stage_of_a_long_list() -> None:
    rng = np.random.default_rng(0)
    flavors = [f"w{a} w{b}" for a, b in product(range(50), range(50)) if a < b]
    rng.shuffle(flavors)
    vocabulary = vocabulary_of({"flavor": flavors, "negative": ["ugly"]})
    ranker = FragmentRanker(vocabulary)
    target = "w1 w2 w3 w4 w5 w6"
    found = compose("negative", target, None, ranker=ranker)
    scores = np.sort(ranker.scores(Encoder(DIM).encode_texts([target]))[0])
    assert found.score < scores[0]
    assert all(part.score < 0 for part in found.parts)


def test_negative_kinds_lead_and_flavors_that_other_pictures_show_follow_where_the_vocabulary_is_calibrated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unprompt.search.modes.negative.MISSING", 10)
    odd = [f"odd{i} quirk{i}" for i in range(90)]  # in no picture
    common = [f"thing{i} sight{i}" for i in range(10)]  # each in some
    vocabulary = vocabulary_of({"flavor": [*odd, *common], "negative": ["ugly", "blurry", "bad hands"]})
    shown = [f"{text} noise{i}" for i in range(20) for text in common]
    target = "dog thing1 sight1"
    plain = compose("negative", target, None, ranker=FragmentRanker(vocabulary))
    assert any(part.text in odd for part in plain.parts)
    found = compose("negative", target, None, ranker=FragmentRanker(calibrated(vocabulary, shown)))
    kinds = [part.kind for part in found.parts]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"negative", "flavor"}
    assert {part.text for part in found.parts if part.kind == "flavor"} <= {*common} - {"thing1 sight1"}
    assert found.score == pytest.approx(cosine(found.prompt, target), abs=3e-6)
    assert sum(part.gain for part in found.parts) == pytest.approx(found.score, abs=3e-6)
    assert found.prompt == ", ".join(part.text for part in found.parts)


@pytest.mark.parametrize("left", ["flavor", "negative"])
def test_a_calibrated_negative_does_with_either_kind(left: str) -> None:
    lists = {left: ["ugly cat", "blurry ship"]}
    ranker = FragmentRanker(calibrated(vocabulary_of(lists), [f"ugly thing{i}" for i in range(20)]))
    found = compose("negative", "dog", None, ranker=ranker)
    assert found.parts
    assert {part.kind for part in found.parts} == {left}
