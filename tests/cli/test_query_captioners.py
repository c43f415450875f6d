"""``query --captioner``: who is asked, and when nobody is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fakes import FakeEncoder, colour_folder, colour_picture
from tiny_library import write_library
from unprompt.cli import main
from unprompt.cli.captioners import DEFAULT
from unprompt.errors import CaptionerError
from unprompt.search.reranker import Model, Reranker
from unprompt.types import Candidate, Part


class Writer:
    """Writes its own name into every caption."""

    def __init__(self, name: str) -> None:
        self.name = name

    def caption(
        self, images: Sequence[Image.Image], *, neighbours: Sequence[Sequence[str]] | None = None, **_: int
    ) -> list[list[Candidate]]:
        text = f"a picture for {self.name}"
        return [[Candidate(text, -1.0, (Part(text, f"captioner:{self.name}", "caption", -1.0),))] for _ in images]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captioned")
    write_library(root / "library", FakeEncoder(), colour_folder(root / "pictures", 16), {"a red sea": 1})
    return root / "library"


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return colour_picture(tmp_path / "red.png", "red", seed=900)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The captioners that were loaded, with their devices; all captions win."""
    asked: list[tuple[str, str]] = []

    def load(name: str, device: str) -> Writer:
        if name == "gone":
            raise CaptionerError("no captioner 'gone': name another")
        asked.append((name, device))
        return Writer(name)

    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: FakeEncoder())
    monkeypatch.setattr("unprompt.captioners.registry.load_captioner", load)
    monkeypatch.setattr("unprompt.captioners.registry.packaged", lambda: ["other", DEFAULT])
    monkeypatch.setattr(Reranker, "load", lambda encoder: Reranker(Model(("iscap",), (), {}, False, (1.0,))))
    return asked


@pytest.fixture
def run(library: Path, loaded: list[tuple[str, str]]) -> Iterator[Callable[..., Result]]:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["query", *map(str, arguments), "--library", str(library)])

    return invoke


def parts(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [[part["source"] for part in json.loads(line)["final"]["parts"]] for line in result.stdout.splitlines()]


def test_the_default_captioner_is_asked(run: Callable[..., Result], loaded: list[tuple[str, str]], red: Path) -> None:
    result = run(red, red, "--json")
    assert parts(result) == [[f"captioner:{DEFAULT}"]] * 2
    assert loaded == [(DEFAULT, "cpu")]
    assert json.loads(result.stdout.splitlines()[0])["final"]["prompt"] == f"a picture for {DEFAULT}"
    text = run(red).stdout
    assert f"[caption, captioner:{DEFAULT}]" in text


def test_others_can_be_named(run: Callable[..., Result], loaded: list[tuple[str, str]], red: Path) -> None:
    assert parts(run(red, "--json", "--captioner", "./mine", "--captioner", "b", "--captioner", "b")) == [
        ["captioner:./mine"]
    ]
    assert loaded == [("./mine", "cpu"), ("b", "cpu")]


@pytest.mark.parametrize("mode", ["fast", "classic", "best"])
def test_one_that_is_named_writes_the_subject_of_other_modes(
    run: Callable[..., Result], loaded: list[tuple[str, str]], red: Path, mode: str
) -> None:
    picture, words = parts(run(red, "--text", "a red thing", "--json", "--mode", mode, "--captioner", "mine"))
    assert picture[0] == "captioner:mine"
    assert "captioner" not in str(words)
    assert loaded == [("mine", "cpu")]


@pytest.mark.parametrize("arguments", [
    ["--captioner", "none"],
    ["--captioner", "none", "--mode", "classic"],
    ["--mode", "fast"],
    ["--subject", "a ship"],
    ["--combine"],
    ["--less-text", "a green thing"],
])  # fmt: skip
def test_nobody_is_loaded_for_nothing(
    run: Callable[..., Result], loaded: list[tuple[str, str]], red: Path, arguments: list[str]
) -> None:
    [sources] = parts(run(red, "--json", *arguments))
    assert not any("captioner" in source for source in sources)
    assert loaded == []


def test_words_have_no_captions(run: Callable[..., Result], loaded: list[tuple[str, str]], red: Path) -> None:
    assert "captioner" not in str(parts(run("--text", "a red thing", "--json")))
    assert loaded == []
    picture, words = parts(run(red, "--text", "a red thing", "--json"))
    assert picture == [f"captioner:{DEFAULT}"]
    assert "captioner" not in str(words)


def test_a_default_that_is_not_installed_is_not_missed(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, red: Path
) -> None:
    monkeypatch.setattr("unprompt.captioners.registry.packaged", lambda: ["other"])
    assert "captioner" not in str(parts(run(red, "--json")))


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["--captioner", "gone"], 1, "no captioner 'gone'"),
    (["--captioner", "none", "--captioner", "b"], 2, "none stands alone"),
    (["--captioner", "b", "--mode", "retrieve"], 2, "--captioner writes for single pictures"),
    (["--captioner", "b", "--mode", "negative"], 2, "not in mode retrieve or negative"),
    (["--captioner", "b", "--subject", "a ship"], 2, "nor with --subject"),
    (["--captioner", "b", "--mode", "fast", "--combine"], 2, "leave it out"),
    (["--captioner", "b", "--combine"], 2, "leave it out"),
])  # fmt: skip
def test_what_cannot_be_is_told(
    run: Callable[..., Result], red: Path, arguments: list[str], status: int, words: str
) -> None:
    result = run(red, *arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert words in result.stderr
