"""What was encoded lately is not encoded again, and answers are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fakes import FakeEncoder
from unprompt.search.text_cache import TextCache


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_embeddings_are_the_encoders_whatever_is_kept(size: int) -> None:
    encoder, rng = FakeEncoder(), np.random.default_rng(size)
    cache = TextCache(encoder, size)
    for _ in range(30):
        texts = [f"word{n}" for n in rng.integers(0, 12, rng.integers(0, 9))]
        np.testing.assert_array_equal(cache.encode_texts(texts), encoder.encode_texts(texts))


def test_each_text_is_encoded_once_while_it_is_kept() -> None:
    encoder = FakeEncoder()
    asked: list[Sequence[str]] = []

    class Spy:
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            asked.append(list(texts))
            return encoder.encode_texts(texts)

    cache = TextCache(Spy(), size=3)
    for texts in (["a", "b", "a"], ["b", "c"], ["a"], ["d"], ["a", "c"], ["b"]):
        cache.encode_texts(texts)
    # "b" was asked for longest ago when "d" came.
    assert asked == [["a", "b"], ["c"], ["d"], ["b"]]


def test_what_is_given_out_can_be_changed() -> None:
    cache = TextCache(FakeEncoder())
    cache.encode_texts(["a"])[:] = 0
    cache.encode_texts(["a"])[:] = 0
    np.testing.assert_array_equal(cache.encode_texts(["a"]), FakeEncoder().encode_texts(["a"]))


def test_drafts_are_the_encoders_and_are_never_taken_for_embeddings() -> None:
    class Drafting(FakeEncoder):
        drafts = True

        def draft_texts(self, texts: Sequence[str]) -> np.ndarray:
            return -self.encode_texts(texts)

    cache, exact = TextCache(Drafting()), FakeEncoder().encode_texts(["a", "b"])
    np.testing.assert_array_equal(cache.draft_texts(["a", "b"]), -exact)
    np.testing.assert_array_equal(cache.encode_texts(["a", "b"]), exact)
    np.testing.assert_array_equal(cache.draft_texts(["a", "b"]), -exact)


def test_an_encoder_without_drafts_encodes_and_what_it_encoded_is_kept() -> None:
    encoder = FakeEncoder()
    cache = TextCache(encoder)
    np.testing.assert_array_equal(cache.draft_texts(["a", "b"]), FakeEncoder().encode_texts(["a", "b"]))
    cache.encode_texts(["b", "a"])
    assert encoder.texts_encoded == 2
