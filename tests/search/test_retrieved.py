"""Mode "retrieve": an answer at the price of retrieval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.errors import QueryError
from unprompt.index.library import Library
from unprompt.search.engine import Engine
from unprompt.search.evidence import find_evidence
from unprompt.search.policy import Policy
from unprompt.search.rank_options import RankOptions
from unprompt.search.retrieved import retrieved_finals
from unprompt.search.settings import Settings
from unprompt.types import Candidate, Part

RETRIEVE = Settings(mode="retrieve")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red picture that no library holds."""
    return colour_picture(tmp_path / "red.png", "red", seed=999)


def test_the_best_prompt_is_the_answer_and_no_text_is_encoded(
    library: Library, encoder: FakeEncoder, red: Path
) -> None:
    engine = Engine(library, encoder)
    [found] = engine.query(red, settings=RETRIEVE)
    assert encoder.texts_encoded == 0
    assert found.fragments == {}
    assert found.final.prompt == found.prompts[0].prompt
    [part] = found.final.parts
    assert (part.text, part.source, part.kind) == (found.prompts[0].prompt, found.prompts[0].source, "prompt")
    [plain] = engine.query(red)
    assert (found.prompts, found.neighbours) == (plain.prompts, plain.neighbours)


def test_its_score_is_the_cosine_of_the_stored_text(library: Library, encoder: FakeEncoder, red: Path) -> None:
    engine = Engine(library, encoder)
    [query] = next(engine.embed(red))
    [found] = engine.search([query], settings=RETRIEVE)
    true = float(encoder.encode_texts([found.final.prompt])[0] @ query.embedding)
    assert found.final.score == found.final.parts[0].score == found.final.parts[0].gain == pytest.approx(true, abs=2e-3)


def test_the_score_of_a_prompt_that_only_a_neighbour_has(tmp_path: Path, encoder: FakeEncoder, red: Path) -> None:
    """Its text is far from the picture, so that the prompt index does not bring it up among sixty others."""
    pictures = [(red, "something else entirely")]
    words = {f"red {number}": 1 for number in range(60)}
    engine = Engine(write_library(tmp_path / "library", encoder, pictures, words, []), encoder)
    [query] = next(engine.embed(colour_picture(tmp_path / "again.png", "red", seed=7)))
    [found] = find_evidence(engine.library, [query], 50)
    assert "something else entirely" not in [hit.id for hit in found.near]
    true = float(encoder.encode_texts(["something else entirely"])[0] @ query.embedding)
    policy, part = Policy(), Part("something else entirely", "neighbour:x", "prompt", 0.0)
    task = replace(engine._task([found], RETRIEVE), subjects=[part])
    [final] = retrieved_finals(task, [found], policy, engine._stored)
    assert final.score == pytest.approx(true, abs=2e-3)
    [final] = retrieved_finals(task, [found], policy, None)
    assert (final.prompt, final.score) == ("something else entirely", 0.0)


def test_policy_budget_and_named_kinds_hold(library: Library, encoder: FakeEncoder, red: Path) -> None:
    engine = Engine(library, encoder)
    policy = Policy(forbid=("red",), prefix="sks")
    ranking = RankOptions(kinds=("flavor",))
    [found] = engine.query(red, settings=Settings(mode="retrieve", policy=policy, ranking=ranking))
    assert found.final.prompt.startswith("sks, ")
    assert "red" not in found.final.prompt.split()
    assert found.final.score == 0.0  # nobody has measured what is left
    assert list(found.fragments) == ["flavor"]


def test_an_empty_library_and_a_batch(tmp_path: Path, library: Library, encoder: FakeEncoder, red: Path) -> None:
    blue = colour_picture(tmp_path / "blue.png", "blue", seed=998)
    engine = Engine(library, encoder)
    together = engine.query([red, blue], settings=RETRIEVE)
    assert [each.final for each in together] == [engine.query(one, settings=RETRIEVE)[0].final for one in (red, blue)]
    empty = Engine(write_library(tmp_path / "empty", encoder, [], {}, []), encoder)
    assert empty.query(red, settings=RETRIEVE)[0].final == Candidate("", 0.0)
    assert np.isfinite(together[0].final.score)


def test_a_subject_has_no_place_in_it() -> None:
    with pytest.raises(QueryError, match="leave the subject out"):
        Settings(mode="retrieve", subject="a dog")
