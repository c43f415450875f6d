from __future__ import annotations

import numpy as np
import pytest

from fakes import normalise
from unprompt.index.vocabulary import Vocabulary
from unprompt.search.diversity import Collapse, mmr, same_words_key
from unprompt.types import Fragment


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Oil Painting", "oil-paintings"),
        ("the golden hour!", "golden hour"),
        ("a photo of the cat", "photo of a cat"),
        ("studies", "study"),
        ("brushes", "brush"),
        ("Café", "cafe"),
        ("artist's sketch", "artists sketch"),
        ("8k", "8K,"),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert same_words_key(one) == same_words_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dog on a car", "car on a dog"),
        ("glass", "glas"),
        ("canvas", "canva's of"),
        ("4k", "8k"),
        ("a", "the"),
        ("!!!", "???"),
        ("genius", "geniu"),
        ("水彩", "油彩"),
    ],
)
def test_other_words(one: str, other: str) -> None:
    assert same_words_key(one) != same_words_key(other)


def vocabulary(texts: list[str], rows: np.ndarray, kind: str = "flavor") -> Vocabulary:
    return Vocabulary.of([Fragment(text, kind) for text in texts], normalise(rows))


def test_collapse_keeps_the_best_of_the_same_words() -> None:
    made = vocabulary(["red", "oil painting", "Reds", "The Oil Paintings!", "blue"], np.eye(5))
    assert Collapse(made, 0.9).keep(np.array([2, 3, 0, 1, 4]), 5).tolist() == [0, 1, 4]
    assert Collapse(made, 0.9).keep(np.array([2, 3, 0, 1, 4]), 2).tolist() == [0, 1]


def test_collapse_keeps_one_rendering_of_a_fragment() -> None:
    made = vocabulary(["Claude Monet", "Banksy"], np.eye(4), "artist")
    assert made.terms == ["by Claude Monet", "inspired by Claude Monet", "by Banksy", "inspired by Banksy"]
    assert Collapse(made, 1.0).keep(np.array([1, 0, 2, 3]), 9).tolist() == [0, 2]


def test_collapse_by_embedding_compares_with_what_is_kept_only() -> None:
    angles = np.array([0.0, 0.3, 0.6, 0.9])
    made = vocabulary(["a1", "b2", "c3", "d4"], np.stack([np.cos(angles), np.sin(angles)], axis=1))
    # The second is near the first, the third near the second but not near the first.
    assert Collapse(made, np.cos(0.4)).keep(np.arange(4), 4).tolist() == [0, 2]
    assert Collapse(made, np.cos(0.2)).keep(np.arange(4), 4).tolist() == [0, 1, 2, 3]


def test_mmr_on_hand_worked_numbers() -> None:
    # Items 0 and 1 are the same direction, 2 is at right angles to them.
    embeddings = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([0.9, 0.8, 0.3], dtype=np.float32)
    # After 0: item 1 has 0.5 * 0.8 - 0.5 * 1 = -0.1, item 2 has 0.5 * 0.3 - 0 = 0.15.
    assert mmr(relevance, embeddings, 3, 0.5).tolist() == [0, 2, 1]
    # With 0.8: item 1 has 0.64 - 0.2 = 0.44, item 2 has 0.24.
    assert mmr(relevance, embeddings, 3, 0.8).tolist() == [0, 1, 2]
    assert mmr(relevance, embeddings, 2, 1.0).tolist() == [0, 1]
    assert mmr(relevance, embeddings, 9, 0.0).tolist() == [0, 2, 1]


def test_mmr_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    embeddings, query = normalise(rng.standard_normal((30, 4))), normalise(rng.standard_normal((1, 4)))[0]
    relevance = embeddings @ query
    for weight in (0.3, 0.7):
        chosen: list[int] = []
        while len(chosen) < 10:
            left = [i for i in range(30) if i not in chosen]
            gain = {
                i: weight * relevance[i]
                - (1 - weight) * max((embeddings[i] @ embeddings[j] for j in chosen), default=0)
                for i in left
            }
            chosen.append(max(left, key=lambda i: gain[i]))
        assert mmr(relevance, embeddings, 10, weight).tolist() == chosen


def test_mmr_equals_go_by_position() -> None:
    assert mmr(np.full(4, 0.5, np.float32), normalise(np.ones((4, 3))), 4, 0.5).tolist() == [0, 1, 2, 3]
