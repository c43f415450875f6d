"""What the searches for chains are tested with: texts, an encoder that counts, and what holds of every chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import strategies as st

from fakes import FakeEncoder
from unprompt.search.chains import Chain, Fits
from unprompt.search.words import append, holds_words
from unprompt.types import Embeddings

WORDS = [f"word{i}" for i in range(40)]
phrases = st.lists(st.sampled_from(WORDS[:12]), min_size=1, max_size=2, unique=True).map(" ".join)


class Counting:
    """A fake encoder that keeps the texts of every call."""

    def __init__(self, dim: int = 64) -> None:
        self.encoder = FakeEncoder(dim)
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.calls.append(list(texts))
        return self.encoder.encode_texts(texts)


def at_most(words: int) -> Fits:
    return lambda texts: [len(text.split()) <= words for text in texts]


def cosine(text: str, target: str) -> float:
    return float(np.dot(*FakeEncoder(64).encode_texts([text, target]).astype(np.float64)))


def check_chain(found: Chain, texts: Sequence[str], start: str, target: str, limit: int) -> None:
    """What is true of the chain that any search for a target finds from `start`, of at most `limit` words."""
    assert len(found.gains) == len(found.columns) + 1
    assert sum(found.gains) == pytest.approx(found.score, abs=1e-6)
    assert found.score == pytest.approx(cosine(found.text, target) if found.text else 0.0, abs=2e-6)
    prompt = start
    for column in found.columns:
        assert not holds_words(prompt, texts[column])
        prompt = append(prompt, texts[column])
    assert prompt == found.text
    assert not found.columns or len(found.text.split()) <= limit
    if start:
        assert found.score >= cosine(start, target) - 2e-6
    else:
        singles = [cosine(text, target) for text in texts if len(text.split()) <= limit]
        assert found.score >= max(singles, default=0.0) - 2e-6


def check_nothing_to_choose_from(search: Callable[..., Chain]) -> None:
    """A search, of target, start, texts and limit, gives back what it began with."""
    assert search("word1", "word2", []).text == "word2"
    assert search("word1", "", []).text == ""
    assert search("word1", "", []).gains == (0.0,)
    assert search("word1", "", ["word1"], limit=0).text == ""
    assert search("word1", "word2 word3", ["word1"], limit=1).text == "word2 word3"


def many_texts() -> list[str]:
    """About 1,200 texts of three words."""
    rng = np.random.default_rng(3)
    return sorted({" ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(1200)})


def greedy(start: str, texts: Sequence[str], target: str) -> tuple[str, int]:
    """What appending the best text of all finds, as clip-interrogator does, and how many texts it encodes."""
    prompt, encodes = start, 0
    query = FakeEncoder(64).encode_texts([target])[0]
    while len(prompt.split()) <= 9:
        trials = [append(prompt, text) for text in texts if not holds_words(prompt, text)]
        encodes += len(trials)
        prompt = trials[int((FakeEncoder(64).encode_texts(trials) @ query).argmax())]
    return prompt, encodes
