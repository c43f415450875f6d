from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.evaluation.leaks import Leaks, find_leaks, without_leaks
from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.index.library import Library


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def library(tmp_path: Path, encoder: FakeEncoder) -> Library:
    pairs = [(colour_picture(tmp_path / f"{i}.png", "red", seed=i), f"a red thing {i}") for i in range(3)]
    return write_library(tmp_path / "my.library", encoder, pairs, {"a prompt alone": 2})


def test_finds_pictures_and_prompts(library: Library, tmp_path: Path) -> None:
    held, new = sha256(tmp_path / "1.png"), "0" * 64
    leaks = find_leaks(
        library,
        [held.upper(), new, new, new, None, held],
        ["something else", "Thing 2, a red!", "A prompt: alone", "a red thing", None, None],
    )
    assert leaks.pictures.tolist() == [True, False, False, False, False, True]
    assert leaks.prompts.tolist() == [False, True, True, False, False, False]
    assert str(leaks) == "4 of 6 queries are in the library: 2 by picture, 2 by prompt"
    assert leaks.to_dict() == {"queries": 6, "leaked": 4, "by_picture": 2, "by_prompt": 2}


def test_every_shard_is_looked_at(library_path: Path) -> None:
    library = Library.open(library_path)
    records = library.records(range(len(library)))
    hashes = [str(record.metadata["sha256"]) for record in records]
    assert len(library.manifest.shards) == 3
    assert find_leaks(library, hashes, [None] * len(hashes)).pictures.all()
    assert find_leaks(library, [None] * len(hashes), [record.prompt for record in records]).prompts.all()


def test_removed_unless_told_otherwise(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    leaks = find_leaks(library, [None] * 3, ["new", "a red thing 0", "newer"])
    with caplog.at_level(logging.WARNING):
        assert without_leaks(["x", "y", "z"], leaks) == ["x", "z"]
        assert without_leaks(["x", "y", "z"], leaks, keep=True) == ["x", "y", "z"]
    assert "1 of 3 queries are in the library" in caplog.messages[0]
    assert "left out" in caplog.messages[0]
    assert "too good" in caplog.messages[1]


def test_no_leak_no_warning(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    assert without_leaks(["x"], find_leaks(library, ["f" * 64], ["new"])) == ["x"]
    assert not caplog.messages


def test_a_library_of_prompts_alone(tmp_path: Path, encoder: FakeEncoder) -> None:
    library = write_library(tmp_path / "p.library", encoder, prompts={"кот": 1})
    leaks = find_leaks(library, ["0" * 64] * 2, ["Кот!", "пёс"])
    assert leaks.pictures.tolist() == [False, False]
    assert leaks.prompts.tolist() == [True, False]


def test_bad_arguments(library: Library) -> None:
    with pytest.raises(EvaluationError, match="1 sha256 and 2 prompts"):
        find_leaks(library, [None], ["a", "b"])
    leaks = find_leaks(library, [None], ["a prompt alone"])
    assert isinstance(leaks, Leaks)
    with pytest.raises(EvaluationError, match="2 queries and leaks of 1"):
        without_leaks(["a", "b"], leaks)
    with pytest.raises(EvaluationError, match="all 1 queries are in the library"):
        without_leaks(["a"], leaks)
