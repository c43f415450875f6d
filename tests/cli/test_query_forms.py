"""Words, embeddings, several pictures at once, formats, policies and sidecars."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_folder, colour_picture
from tiny_library import write_library
from unprompt.builders.vocabulary import calibrate_vocabulary
from unprompt.cli import main
from unprompt.types import Fragment

FRAGMENTS = [
    Fragment("Claude Monet", "artist", "artists.txt", died=1926),
    Fragment("Living Painter", "artist", "artists.txt"),
    Fragment("oil painting", "medium", "mediums.txt"),
    Fragment("vivid red", "flavor", "flavors.txt"),
    Fragment("vivid green", "flavor", "flavors.txt", namespace="mine"),
    Fragment("in the manner of Claude Monet", "flavor", "flavors.txt"),
    Fragment("ugly blue", "negative", "negative.txt"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    write_library(root / "library", FakeEncoder(), colour_folder(root / "pictures"), {"a red sea": 1}, FRAGMENTS)
    calibrate_vocabulary(root / "library")
    return root / "library"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    colour_picture(tmp_path / "in" / "red.png", "red", seed=900)
    colour_picture(tmp_path / "in" / "green.png", "green", seed=901)
    return tmp_path / "in"


@pytest.fixture
def run(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: FakeEncoder())
    monkeypatch.setattr("unprompt.cli.query.captioners_of", lambda *_: [])

    def invoke(command: str, *arguments: object) -> Result:
        return CliRunner().invoke(main, [command, *map(str, arguments), "--library", str(library)])

    return invoke


def answers(result: Result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_words_and_embeddings_are_queries_too(run: Callable[..., Result], tmp_path: Path) -> None:
    np.save(tmp_path / "green.npy", 3 * FakeEncoder().encode_texts(["a green thing"]))
    red, green = answers(run("query", "--json", "--text", "a red thing", "--embedding", tmp_path / "green.npy"))
    assert red["image"] == "a red thing"
    assert " red " in red["prompts"][0]["prompt"]
    assert " green " in green["prompts"][0]["prompt"]


def test_several_pictures_make_one_prompt(run: Callable[..., Result], pictures: Path) -> None:
    [both] = answers(run("query", "--json", "-k", 20, pictures, "--combine"))
    assert both["image"] == f"{pictures / 'green.png'} + {pictures / 'red.png'}"
    found = " ".join(prompt["prompt"] for prompt in both["prompts"])
    assert "red" in found
    assert "green" in found


def test_away_from_a_picture(run: Callable[..., Result], pictures: Path) -> None:
    [plain] = answers(run("query", "--json", "--combine", "-k", 40, pictures))
    [less] = answers(run("query", "--json", "--less", pictures / "green.png", "-k", 40, pictures))
    [words] = answers(run("query", "--json", "--less-text", "a green thing", "-k", 40, pictures))

    def rank(answer: dict) -> int:
        return next(i for i, found in enumerate(answer["neighbours"]) if " green " in found["prompt"])

    assert rank(less) > rank(plain)
    assert rank(words) > rank(plain)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--format", "xml"], "unknown format 'xml': use one of text, txt, csv, json, a1111"),
    (["--mode", "slow"], "unknown mode 'slow'"),
    (["--target", "gpt"], "unknown token budget 'gpt'"),
    (["--min-score", "2"], "min_score is 2"),
    (["--namespaces", "yours"], "no fragments of namespace 'yours'"),
    (["--sidecar", ".png"], "sidecar extension is '.png'"),
    (["--subject", " "], "the subject is blank"),
    (["--embedding", "gone.npy"], "gone.npy cannot be read"),
])  # fmt: skip
def test_bad_settings_are_one_line(
    run: Callable[..., Result], pictures: Path, arguments: list[str], words: str
) -> None:
    result = run("query", pictures, *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert words in result.stderr


def test_nothing_to_query_with(run: Callable[..., Result], pictures: Path) -> None:
    assert "give an IMAGE" in run("query").stderr
    assert "--sidecar writes beside pictures" in run("query", pictures, "--sidecar", ".txt", "--combine").stderr


@pytest.mark.parametrize("mode", ["default", "fast", "classic", "best", "negative", "retrieve"])
def test_every_mode_answers_within_its_budget(run: Callable[..., Result], pictures: Path, mode: str) -> None:
    for answer in answers(run("query", "--json", pictures, "--mode", mode)):
        final = answer["final"]
        assert final["prompt"]
        assert all(part["text"] in final["prompt"] for part in final["parts"])
        assert {"text", "source", "kind", "score", "gain"} == set(final["parts"][0])


def test_the_formats(run: Callable[..., Result], pictures: Path) -> None:
    red = pictures / "red.png"
    [answer] = answers(run("query", "--json", red, "--negative"))
    prompt, negative = answer["final"]["prompt"], answer["negative"]["prompt"]
    assert run("query", red, "--format", "txt").stdout == f"{prompt}\n"
    [row] = csv.DictReader(run("query", red, "--format", "csv", "--negative").stdout.splitlines())
    assert (row["image"], row["prompt"], row["negative_prompt"]) == (str(red), prompt, negative)
    assert run("query", red, "--format", "a1111", "--negative").stdout == f"{prompt}\nNegative prompt: {negative}\n\n"
    assert "negative prompt" in run("query", red, "--negative").stdout
    assert answers(run("query", "--json", red))[0]["negative"] is None


def test_sidecars_are_written_once_and_resumed(run: Callable[..., Result], pictures: Path) -> None:
    (pictures / "red.txt").write_text("mine\n")
    result = run("query", pictures, "--sidecar", "txt", "--prefix", "<lora:my:1>, mylora")
    assert "1 captions written, 1 were there" in result.stderr
    assert (pictures / "red.txt").read_text() == "mine\n"
    assert (pictures / "green.txt").read_text().startswith("<lora:my:1>, mylora, a green thing")
    assert "0 captions written, 2 were there" in run("query", pictures, "--sidecar", ".txt").stderr
    assert "2 captions written" in run("query", pictures, "--sidecar", ".txt", "--overwrite").stderr
    assert (pictures / "red.txt").read_text().startswith("a red")


def test_policies(run: Callable[..., Result], pictures: Path) -> None:
    def texts(*arguments: object) -> set[str]:
        [answer] = answers(run("query", "--json", pictures / "red.png", "-k", 50, *arguments))
        return {each["text"] for found in answer["fragments"].values() for each in found}

    everything = texts("--collapse", 0)
    assert {"by Claude Monet", "inspired by Living Painter", "in the manner of Claude Monet"} <= everything
    none = texts("--artists", "none", "--collapse", 0)
    assert not any("Monet" in text or "Painter" in text for text in none)
    dead = texts("--artists", "dead", "--collapse", 0)
    assert "by Claude Monet" in dead
    assert not any("Painter" in text for text in dead)
    assert not any("vivid" in text for text in texts("--forbid", "vivid"))
    assert texts("--namespaces", "mine") == {"vivid green"}
    assert texts("--include", "vivid *") == {"vivid green", "vivid red"}
    assert "vivid red" not in texts("--exclude", "VIVID red")
    assert not any("Monet" in text for text in texts("--exclude-kinds", "artist", "--exclude", "*monet"))
    assert len([text for text in texts() if "Monet" in text]) == 2  # one rendering, and the flavor


def test_the_subject_can_be_given(run: Callable[..., Result], pictures: Path) -> None:
    for mode in ("default", "fast", "classic", "best"):
        [answer] = answers(run("query", "--json", pictures / "red.png", "--subject", "a ship", "--mode", mode))
        assert answer["final"]["prompt"].startswith("a ship")


def test_analyze_prints_terms_by_kind(run: Callable[..., Result], pictures: Path) -> None:
    red = pictures / "red.png"
    [answer] = answers(run("analyze", red, "--format", "json", "-k", 2))
    assert answer["image"] == str(red)
    assert list(answer["fragments"]) == ["artist", "medium", "flavor", "negative"]
    best = answer["fragments"]["flavor"][0]
    assert (best["text"], 0 < best["percentile"] < 1) == ("vivid red", True)
    rows = list(csv.DictReader(run("analyze", pictures, "--format", "csv", "-k", 1).stdout.splitlines()))
    assert len(rows) == 8
    assert [row["text"] for row in rows if row["kind"] == "flavor"] == ["vivid green", "vivid red"]
    text = run("analyze", red, "-k", 1).stdout
    assert "  flavor (cosine, percentile)" in text
    assert "% vivid red" in text
    assert run("analyze", red, "--format", "json", "--order", "percentile").exit_code == 0
    assert run("analyze", pictures / "gone.png").exit_code == 1
