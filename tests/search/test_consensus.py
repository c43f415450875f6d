"""The prompt that agrees best with all that was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unprompt.search.consensus import (
    DEPTH,
    NEAR,
    NEAR_SHARPNESS,
    NEIGHBOUR_SHARPNESS,
    NEIGHBOURS,
    PICTURE,
    Guesses,
)
from unprompt.search.results import Neighbour
from unprompt.types import Hit, Record


def neighbours(*found: tuple[str, float]) -> list[Neighbour]:
    return [
        Neighbour(Hit(f"id{rank}", score, rank), Record(f"id{rank}", prompt))
        for rank, (prompt, score) in enumerate(found, start=1)
    ]


def hits(*found: tuple[str, float]) -> list[Hit]:
    return [Hit(prompt, score, rank) for rank, (prompt, score) in enumerate(found, start=1)]


def unit(*values: float) -> NDArray[np.float64]:
    vector = np.array(values, dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector))


def by_definition(
    guesses: Guesses, query: Sequence[float], known: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    """The mean cosine with the picture, the prompts near it and the neighbours' prompts, one number at a time."""

    def mean_gain(text: str, scores: Mapping[str, float], sharpness: float) -> float:
        weights = {each: math.exp(sharpness * score) for each, score in scores.items()}
        return sum(w * float(known[text] @ known[each]) for each, w in weights.items()) / (sum(weights.values()) or 1.0)

    return {
        text: (
            PICTURE * float(known[text] @ np.array(query))
            + NEAR * mean_gain(text, guesses.near, NEAR_SHARPNESS)
            + NEIGHBOURS * mean_gain(text, guesses.neighbours, NEIGHBOUR_SHARPNESS)
        )
        / (PICTURE + NEAR + NEIGHBOURS)
        for text in guesses.texts
    }


@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 6))
def test_it_is_a_mean_of_cosines(seed: int, pictures: int, prompts: int) -> None:
    draw = np.random.default_rng(seed)
    names = [f"prompt {number}" for number in range(8)]
    known = {name: unit(*draw.standard_normal(5)) for name in names}
    query = unit(*draw.standard_normal(5))
    guesses = Guesses.of(
        neighbours(*zip(draw.choice(names, pictures), draw.uniform(-1, 1, pictures), strict=True)),
        hits(*zip(draw.choice(names, prompts, replace=False), draw.uniform(-1, 1, prompts), strict=True)),
    )
    found = guesses.agreement(query, known)
    assert list(found) == list(guesses.texts)
    assert found == pytest.approx(by_definition(guesses, query.tolist(), known), abs=2e-9)


def test_hubs_that_have_nothing_in_common_lose_to_prompts_that_agree() -> None:
    known = {
        "spaceship by A": unit(0.3, 1, 0, 0, 0),
        "portrait by B": unit(0.3, 0, 1, 0, 0),
        "house by C": unit(0.3, 0, 0, 1, 0),
        "two dogs in a garden": unit(1, 0, 0, 0, 0.4),
        "dogs": unit(1, 0, 0, 0, 0.5),
    }
    hubs = neighbours(("spaceship by A", 0.6), ("portrait by B", 0.6), ("house by C", 0.59))
    guesses = Guesses.of(hubs, hits(("two dogs in a garden", 0.5), ("dogs", 0.49)))
    scores = guesses.agreement(unit(1, 0.2, 0.2, 0.2, 0.4), known)
    assert max(scores, key=scores.__getitem__) == "two dogs in a garden"
    assert min(scores[text] for text in ("two dogs in a garden", "dogs")) > max(
        scores[text] for text in list(known)[:3]
    )


def test_the_prompt_of_a_picture_that_is_clearly_nearest_wins() -> None:
    known = {"red": unit(1, 0, 0.2), "blue": unit(0, 1, 0.2), "green": unit(0, 1, 0.4)}
    found = hits(("blue", 0.4), ("green", 0.4), ("red", 0.4))
    near = Guesses.of(neighbours(("red", 0.9), ("blue", 0.5), ("green", 0.5)), found).agreement(unit(1, 0.2, 0), known)
    alike = Guesses.of(neighbours(("red", 0.5), ("blue", 0.5), ("green", 0.5)), found).agreement(unit(0.2, 1, 0), known)
    assert max(near, key=near.__getitem__) == "red"
    assert max(alike, key=alike.__getitem__) == "green"


def test_equal_prompts_stand_as_they_were_found_and_deep_ones_do_not_guess() -> None:
    same = unit(1, 0)
    names = [f"prompt {number}" for number in range(DEPTH + 5)]
    guesses = Guesses.of(neighbours(*((name, 0.5) for name in reversed(names))), hits(("last", 0.5), (names[-1], 0.5)))
    assert guesses.texts == (*names[:4:-1], "last")
    scores = guesses.agreement(unit(1, 1), dict.fromkeys(guesses.texts, same))
    assert len(set(scores.values())) == 1


def test_a_neighbour_counts_once_by_its_nearest_picture() -> None:
    assert Guesses.of(neighbours(("a", 0.9), ("b", 0.8), ("a", 0.7)), []).neighbours == {"a": 0.9, "b": 0.8}


def test_nothing_found_and_nothing_known() -> None:
    assert Guesses.of([], []).agreement(unit(1, 0), {}) == {}
    with pytest.raises(KeyError):
        Guesses.of(neighbours(("a", 0.5)), []).agreement(unit(1, 0), {})
