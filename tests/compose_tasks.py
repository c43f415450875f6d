"""What the tests of composing share: a small vocabulary, tasks, and an encoder of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from fakes import FakeEncoder, normalise, word_vector
from unprompt.index.calibration import Calibration
from unprompt.index.vocabulary import FORMS, PLAIN, Vocabulary
from unprompt.search.budget import TokenBudget
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.ranker import FragmentRanker
from unprompt.types import Candidate, Embeddings, Fragment, Part

DIM = 64
LISTS = {
    "artist": ["Claude Monet", "Edvard Munch", "Hokusai"],
    "medium": ["an oil painting", "a photo", "a sketch"],
    "movement": ["impressionism", "art deco"],
    "trending": ["trending on pixiv", "flickr"],
    "flavor": [f"flavor{i} tint{i % 7}" for i in range(30)] + ["", "Flavor1, tint1!", "flavor2 tint2"],
    "negative": ["ugly", "blurry", "bad hands"],
}


vector = cache(word_vector)


class Encoder(FakeEncoder):
    """The fake encoder, quicker: it remembers the words."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        split = [text.lower().replace(",", " ").split() or ["(nothing)"] for text in texts]
        rows = [np.sum([vector(word, self.dim) for word in words], axis=0) for words in split]
        return normalise(np.array(rows)) if rows else np.zeros((0, self.dim), np.float32)


def count_words(texts: Sequence[str]) -> list[int]:
    """A word is a token, and so is every separator."""
    return [len(text.replace(",", " , ").split()) for text in texts]


def budget(limit: int | None = 75) -> TokenBudget:
    return TokenBudget("words", limit, 0, count_words)


def vocabulary_of(lists: dict[str, list[str]]) -> Vocabulary:
    fragments = [Fragment(text, kind, "list.txt") for kind, texts in lists.items() for text in texts]
    terms = [form.replace("{}", each.text) for each in fragments for form in FORMS.get(each.kind, PLAIN)]
    return Vocabulary.of(fragments, Encoder(DIM).encode_texts(terms))


VOCABULARY = vocabulary_of(LISTS)


def subject(text: str | None) -> Part | None:
    return None if text is None else Part(text, "neighbour:1", "subject", 0.0)


def task_of(
    targets: Sequence[str],
    subjects: Sequence[str | None],
    ranker: FragmentRanker | None = None,
    limit: int | None = 75,
    encode: Callable[[Sequence[str]], Embeddings] | None = None,
) -> ComposeInput:
    encoder = Encoder(DIM)
    return ComposeInput(
        queries=encoder.encode_texts(targets),
        subjects=[subject(text) for text in subjects],
        ranker=ranker or FragmentRanker(VOCABULARY),
        encode_texts=encode or encoder.encode_texts,
        budget=budget(limit),
    )


def compose(mode: str, target: str, start: str | None, **options: object) -> Candidate:
    return MODES[mode](task_of([target], [start], **options))[0]  # type: ignore[arg-type]


def cosine(text: str, target: str) -> float:
    return float(np.dot(*Encoder(DIM).encode_texts([text, target]).astype(np.float64)))


TARGETS = [
    "dog an oil painting by Claude Monet impressionism flavor1 tint1 flavor8",
    "cat flavor3 tint3 flavor20 tint6 a photo flickr",
    "ship by Hokusai",
]


def calibrated(vocabulary: Vocabulary, shown: Sequence[str]) -> Vocabulary:
    """The vocabulary, calibrated on reference pictures that show these words."""
    vocabulary.calibration = Calibration.fit(vocabulary.matrix, Encoder(DIM).encode_texts(shown))
    return vocabulary


class Counting:
    """Encodes, and keeps what it encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.texts += texts
        return Encoder(DIM).encode_texts(texts)
