"""Whole prompts are ranked by the embeddings that the library has stored of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeEncoder, colour_picture
from unprompt.index.library import Library
from unprompt.index.where import Where
from unprompt.index.where_parser import parse_where
from unprompt.search.candidates import Found, collect_candidates
from unprompt.search.engine import Engine
from unprompt.search.policy import Policy
from unprompt.search.results import Neighbour
from unprompt.search.retrieve import retrieve_neighbours, retrieve_prompts
from unprompt.search.settings import Settings
from unprompt.search.stored_texts import stored_texts
from unprompt.types import Candidate, Embeddings, Hit, Record

WHOLE = ("neighbours", "prompts")


class Rows:
    """Stored rows whose embedding is their number in the first or second direction, not of norm 1."""

    def __init__(self, prompts: bool = True) -> None:
        self.prompts = prompts
        self.read: list[Sequence[int]] = []

    def picture_texts(self, rows: Sequence[int]) -> Embeddings:
        self.read.append(rows)
        return np.array([[row, 0, 1e-3] for row in rows], dtype=np.float32)

    def prompt_texts(self, rows: Sequence[int]) -> Embeddings | None:
        self.read.append(rows)
        return np.array([[0, row, 1e-3] for row in rows], dtype=np.float32) if self.prompts else None


class Pushed:
    """A database that has some prompts, all along the first direction, and counts how often it is asked."""

    def __init__(self, *prompts: str) -> None:
        self.prompts = prompts
        self.asked: list[list[str]] = []

    def prompt_vectors(self, prompts: Collection[str]) -> dict[str, NDArray[np.float32]]:
        self.asked.append(list(prompts))
        return {text: np.array([3, 4 * (text == "a"), 0], np.float32) for text in self.prompts if text in prompts}


def found(pictures: dict[str, int | None], prompts: dict[str, int | None]) -> Found:
    neighbours = [
        Neighbour(Hit(text, 0.5, rank, row), Record(text, text))
        for rank, (text, row) in enumerate(pictures.items(), start=1)
    ]
    return Found(neighbours, [Hit(text, 0.5, rank, row) for rank, (text, row) in enumerate(prompts.items(), start=1)])


class Counting(FakeEncoder):
    """Remembers the texts that it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        self.seen += texts
        return super().encode_texts(texts)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Pictures that no library holds."""
    return [colour_picture(tmp_path / f"{colour}.png", colour, seed=700) for colour in ("red", "blue", "green")]


def test_each_picture_has_its_own_rows_its_neighbours_first_and_each_row_is_read_once() -> None:
    both = [found({"a": 4, "b": 5}, {"a": 9, "c": 8}), found({"d": 5}, {"a": 9, "e": None})]
    rows = Rows()
    known = stored_texts(rows, both, collect_candidates(both))
    assert [set(each) for each in known] == [{"a", "b", "c"}, {"d", "a"}]
    assert rows.read == [[4, 5], [8, 9]]
    assert np.argmax(known[0]["a"]) == 0
    assert np.argmax(known[1]["a"]) == 1
    for each in known:
        assert all(np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-12) for vector in each.values())


def test_what_is_no_candidate_or_not_stored_is_left_out() -> None:
    one = [found({"a": 4, "b": 5}, {"c": 8})]
    (candidates,) = collect_candidates(one, clean=lambda text: text.replace("b", "cleaned"))
    assert [set(each) for each in stored_texts(Rows(), one, [candidates])] == [{"a", "c"}]
    assert [set(each) for each in stored_texts(Rows(prompts=False), one, [candidates])] == [{"a"}]
    assert stored_texts(Rows(), [Found()], [[]]) == [{}]


def test_a_database_is_asked_once_for_its_own_prompts() -> None:
    both = [found({"a": None, "b": None}, {"c": None}), found({"d": None}, {"a": None})]
    candidates = collect_candidates([replace(one, captions=[Candidate("written", 0.0)]) for one in both])
    pushed = Pushed("a", "c", "d", "written")
    known = stored_texts(pushed, both, candidates)
    assert pushed.asked == [["a", "b", "c", "d"]]
    assert [set(each) for each in known] == [{"a", "c"}, {"d", "a"}]
    np.testing.assert_allclose(known[0]["a"], [0.6, 0.8, 0], atol=1e-12)
    assert {vector.dtype for own in known for vector in own.values()} == {np.dtype(np.float64)}
    assert stored_texts(Pushed(), both, candidates) == [{}, {}]
    silent = Pushed()
    assert stored_texts(silent, [Found()], [[]]) == [{}]
    assert silent.asked == []


@pytest.mark.parametrize("where", [None, parse_where("width > 0")])
def test_hits_say_where_their_texts_lie(library: Library, where: Where | None) -> None:
    encoder = FakeEncoder()
    queries = encoder.encode_texts(["red", "a blue thing", "a green house"])
    for hits in retrieve_neighbours(library, queries, 30, where):
        rows = [each.hit.row for each in hits]
        assert library.records([row for row in rows if row is not None]) == [each.record for each in hits]
        texts = library.picture_texts([row for row in rows if row is not None])
        np.testing.assert_allclose(texts, encoder.encode_texts([each.record.prompt for each in hits]), atol=1e-3)
    for near in retrieve_prompts(library, queries, 12, where):
        texts_near = library.prompt_texts([hit.row for hit in near if hit.row is not None])
        assert texts_near is not None
        np.testing.assert_allclose(texts_near, encoder.encode_texts([hit.id for hit in near]), atol=1e-3)


def test_no_whole_prompt_is_encoded_and_answers_are_the_same(library: Library, pictures: list[Path]) -> None:
    encoder = Counting()
    engine = Engine(library, encoder)
    answers = engine.query(pictures, settings=Settings(ingredients=WHOLE))
    assert encoder.seen == []
    plain = Engine(library, encoder)
    plain.__dict__["_fusion"] = replace(plain._fusion, library=None)
    encoded = plain.query(pictures, settings=Settings(ingredients=WHOLE))
    assert encoder.seen
    for answer, other in zip(answers, encoded, strict=True):
        assert (answer.final.prompt, answer.final.parts[0].source) == (other.final.prompt, other.final.parts[0].source)
        assert answer.final.score == pytest.approx(other.final.score, abs=1e-3)


def test_what_a_policy_changed_is_encoded(library: Library, pictures: list[Path]) -> None:
    encoder = Counting()
    settings = Settings(ingredients=WHOLE, policy=Policy(forbid=("photo",)))
    Engine(library, encoder).query(pictures, settings=settings)
    held = {prompt for prompt, _ in library.prompts(range(library.manifest.counts["prompts"]))}
    assert encoder.seen
    assert not held & set(encoder.seen)
    assert not any("photo" in text for text in encoder.seen)
