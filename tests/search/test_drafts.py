"""Mode "best", which searches by an encoder's drafts, where it makes them, and reports nothing of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from compose_tasks import DIM, TARGETS, Encoder, cosine, task_of
from fakes import normalise, word_vector
from unprompt.index.library import Library
from unprompt.search.engine import Engine
from unprompt.search.modes import MODES
from unprompt.search.queries import text_queries
from unprompt.search.settings import Settings
from unprompt.search.text_cache import TextCache
from unprompt.systems.workshop import CountingEncoder
from unprompt.types import DraftEncoder, Embeddings

STARTS = ["a dog", None, "a ship"]


class Drafting(Encoder):
    """Its drafts are off by about 0.03, each text's in its own way."""

    drafted, drafts = 0, True

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        self.texts_encoded += len(texts)
        return super().encode_texts(texts)

    def draft_texts(self, texts: Sequence[str]) -> Embeddings:
        self.drafted += len(texts)
        noise = [0.03 * word_vector(text, self.dim) / self.dim**0.5 for text in texts]
        return normalise(Encoder(self.dim).encode_texts(texts) + np.array(noise).reshape(len(texts), self.dim))


def test_what_is_reported_is_of_embeddings_and_few_are_made() -> None:
    encoder = Drafting(DIM)
    assert isinstance(encoder, DraftEncoder)
    task = task_of(TARGETS, STARTS, encode=encoder.encode_texts)
    for target, found in zip(TARGETS, MODES["best"](replace(task, draft_texts=encoder.draft_texts)), strict=True):
        true = cosine(found.prompt, target)
        assert found.score == pytest.approx(true, abs=1e-6)
        assert sum(part.gain for part in found.parts) == pytest.approx(true, abs=1e-5)
    assert encoder.drafted > 300
    assert encoder.texts_encoded < encoder.drafted / 2


def test_pictures_of_a_batch_are_answered_as_alone() -> None:
    task = replace(task_of(TARGETS, STARTS), draft_texts=Drafting(DIM).draft_texts)
    for i, found in enumerate(MODES["best"](task)):
        [alone] = MODES["best"](replace(task, queries=task.queries[[i]], subjects=[task.subjects[i]]))
        assert (alone.prompt, alone.score) == (found.prompt, found.score)
        assert [part.gain for part in alone.parts] == [part.gain for part in found.parts]


def test_drafts_that_are_right_change_nothing() -> None:
    task = task_of(TARGETS, STARTS)
    assert MODES["best"](replace(task, draft_texts=Encoder(DIM).encode_texts)) == MODES["best"](task)


def test_an_engine_hands_its_encoders_drafts_to_the_mode(library: Library) -> None:
    encoder = Drafting(32)
    [query] = text_queries(["red whale"], encoder)
    [result] = Engine(library, encoder).search([query], settings=Settings(mode="best"))
    true = float(Encoder(32).encode_texts([result.final.prompt])[0].astype(np.float64) @ query.embedding)
    assert result.final.score == pytest.approx(true, abs=2e-5)  # stored prompts are in half precision
    assert encoder.drafted > 0


def test_drafts_that_are_no_sooner_are_embeddings_and_kept() -> None:
    encoder = Drafting(DIM)
    encoder.drafts = False
    cache = TextCache(encoder)
    np.testing.assert_array_equal(cache.draft_texts(["a dog"]), cache.encode_texts(["a dog"]))
    assert (encoder.drafted, encoder.texts_encoded) == (0, 1)


@pytest.mark.parametrize("made", [Drafting, Encoder])
def test_an_evaluation_counts_drafts_as_texts(made: type[Encoder]) -> None:
    encoder = made(32)
    counted = CountingEncoder(encoder)
    drafts = TextCache(counted).draft_texts(["red", "blue"])
    expected = made(32)
    method = expected.draft_texts if isinstance(expected, Drafting) else expected.encode_texts
    np.testing.assert_array_equal(drafts, method(["red", "blue"]))
    assert counted.texts == 2
