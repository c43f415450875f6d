"""Mode "retrieve": an answer at the price of retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.errors import QueryError
from unprompt.index.library import Library
from unprompt.search.consensus import Guesses
from unprompt.search.engine import Engine
from unprompt.search.evidence import find_evidence
from unprompt.search.policy import Policy
from unprompt.search.rank_options import RankOptions
from unprompt.search.retrieved import retrieved_finals
from unprompt.search.settings import Settings
from unprompt.types import Candidate

RETRIEVE = Settings(mode="retrieve")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red picture that no library holds."""
    return colour_picture(tmp_path / "red.png", "red", seed=999)


def answer(engine: Engine, picture: Path, **settings: Any) -> Candidate:
    """What mode "retrieve" answers for one picture."""
    [found] = engine.query(picture, settings=Settings(mode="retrieve", **settings))
    return found.final


def agreeing(engine: Engine, picture: Path) -> list[str]:
    """The prompts that are found near a picture, the one that agrees best with all first."""
    [query] = next(engine.embed(picture))
    [found] = find_evidence(engine.library, [query], 50)
    guesses = Guesses.of(found.neighbours, found.near)
    known = dict(zip(guesses.texts, FakeEncoder().encode_texts(guesses.texts).astype(np.float64), strict=True))
    scores = guesses.agreement(query.embedding.astype(np.float64), known)
    return sorted(scores, key=lambda text: -scores[text])


def test_the_prompt_that_agrees_best_is_the_answer_and_no_text_is_encoded(
    library: Library, encoder: FakeEncoder, red: Path
) -> None:
    engine = Engine(library, encoder)
    [found] = engine.query(red, k=40, settings=RETRIEVE)
    assert encoder.texts_encoded == 0
    assert found.fragments == {}
    assert found.final.prompt == agreeing(engine, red)[0] != found.prompts[0].prompt
    [part] = found.final.parts
    [same] = [each for each in found.prompts if each.prompt == found.final.prompt]
    assert (part.text, part.source, part.kind) == (same.prompt, same.source, "prompt")
    [plain] = engine.query(red, k=40)
    assert (found.prompts, found.neighbours) == (plain.prompts, plain.neighbours)


def test_a_picture_of_the_library_and_its_copy_get_their_own_prompt(
    tmp_path: Path, encoder: FakeEncoder, pairs: list[tuple[Path, str]]
) -> None:
    path, prompt = pairs[0]
    own = "words of nobody else"
    engine = Engine(write_library(tmp_path / "library", encoder, [(path, own), *pairs[1:8]], {prompt: 1}), encoder)
    with Image.open(path) as image:
        image.save(tmp_path / "copy.bmp")
    for picture in (path, tmp_path / "copy.bmp"):
        assert agreeing(engine, picture)[0] != own
        assert answer(engine, picture).prompt == own


def test_where_the_policy_leaves_nothing_of_the_best_the_next_is_the_answer(
    library: Library, encoder: FakeEncoder, red: Path
) -> None:
    engine = Engine(library, encoder)
    best, *others = agreeing(engine, red)
    forbidden = tuple(best.replace(",", " ").split())
    found = answer(engine, red, policy=Policy(forbid=forbidden))
    left = [each for each in others if set(each.replace(",", " ").split()) - set(forbidden)]
    assert found.parts[0].text
    assert set(found.parts[0].text.replace(",", " ").split()) <= set(left[0].replace(",", " ").split())
    assert not set(found.prompt.replace(",", " ").split()) & set(forbidden)


def test_without_stored_embeddings_rank_fusion_decides(library: Library, encoder: FakeEncoder, red: Path) -> None:
    engine = Engine(library, encoder)
    [query] = next(engine.embed(red))
    [found] = find_evidence(library, [query], 50)
    [final] = retrieved_finals(engine._task([found], RETRIEVE), [found], Policy(), None)
    assert final.prompt == found.prompts[0].prompt != answer(engine, red).prompt


def test_the_answer_depends_on_neither_k_nor_the_batch(library: Library, encoder: FakeEncoder, tmp_path: Path) -> None:
    pictures = [colour_picture(tmp_path / f"{i}.png", name, seed=500 + i) for i, name in enumerate(("red", "blue"))]
    engine = Engine(library, encoder)
    together = [each.final for each in engine.query(pictures, settings=RETRIEVE)]
    for k, size in ((1, 1), (40, 2)):
        assert [each.final for each in engine.query(pictures, k=k, batch_size=size, settings=RETRIEVE)] == together


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
    task = engine._task([found], RETRIEVE)
    [final] = retrieved_finals(task, [found], Policy(), engine._stored)
    assert final.prompt == "something else entirely"  # red pictures are copies of each other
    assert final.score == pytest.approx(true, abs=2e-3)
    [final] = retrieved_finals(task, [found], Policy(), None)
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
