from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder, normalise
from unprompt.errors import LibraryError, QueryError
from unprompt.index.vocabulary import Vocabulary
from unprompt.types import Fragment

FRAGMENTS = [
    Fragment("red", "flavor"),
    Fragment("oil painting", "medium", "mine", 3),
    Fragment("blue", "flavor"),
    Fragment("by nobody", "artist"),
    Fragment("sketch", "medium"),
]


def vocabulary() -> Vocabulary:
    return Vocabulary.of(FRAGMENTS, FakeEncoder().encode_texts([fragment.text for fragment in FRAGMENTS]))


def test_kinds_come_together_in_order_of_first_appearance(tmp_path: Path) -> None:
    made = vocabulary()
    assert made.kinds == ("flavor", "medium", "artist")
    assert [fragment.text for fragment in made.fragments()] == ["red", "blue", "oil painting", "sketch", "by nobody"]
    assert made.fragments("medium") == [FRAGMENTS[1], FRAGMENTS[4]]
    assert made.counts() == {"flavor": 2, "medium": 2, "artist": 1}
    made.write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    again = Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)
    assert again.fragments() == made.fragments()
    np.testing.assert_array_equal(again.embeddings, made.embeddings)


def test_top_is_exact_for_every_kind_and_k() -> None:
    rng = np.random.default_rng(0)
    fragments = [Fragment(f"word{i}", f"kind{i % 3}") for i in range(200)]
    rows, queries = normalise(rng.standard_normal((200, 8))), normalise(rng.standard_normal((4, 8)))
    made = Vocabulary.of(fragments, rows)
    scores = {fragment.text: queries @ row for fragment, row in zip(fragments, rows, strict=True)}
    for k in (1, 5, 66, 67, 500):
        for query, tops in enumerate(made.top(queries, k)):
            for kind, found in tops.items():
                best = sorted((f for f in fragments if f.kind == kind), key=lambda f: -scores[f.text][query])[:k]
                assert [fragment for fragment, _ in found] == best


def test_equal_scores_keep_stored_order() -> None:
    fragments = [Fragment(f"same{i}", "flavor") for i in range(50)]
    made = Vocabulary.of(fragments, np.tile(normalise(np.ones((1, 8))), (50, 1)))
    (tops,) = made.top(normalise(np.ones((1, 8))), 10)
    assert [fragment.text for fragment, _ in tops["flavor"]] == [f"same{i}" for i in range(10)]


def test_only_the_kinds_asked_for_in_their_order() -> None:
    query = FakeEncoder().encode_texts(["red"])
    (tops,) = vocabulary().top(query, 1, ["artist", "flavor"])
    assert list(tops) == ["artist", "flavor"]
    assert tops["flavor"][0][0].text == "red"


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(QueryError, match=r"kind 'flavour'.*known kinds: flavor, medium, artist"):
        vocabulary().top(FakeEncoder().encode_texts(["red"]), 1, ["flavour"])


def test_fragments_and_embeddings_must_agree(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    np.save(tmp_path / "embeddings.npy", np.zeros((3, 32), np.float32))
    with pytest.raises(LibraryError, match="5 fragments and 3 embeddings"):
        Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)
