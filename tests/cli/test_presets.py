"""``unprompt evaluate --preset`` on parts in DiffusionDB's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_picture
from unprompt.cli import main
from unprompt.encoders.training.data import SETS, Example
from unprompt.evaluation.metrics import load_metric
from unprompt.evaluation.presets import load_preset
from unprompt.evaluation.presets.fixture import write_fixture
from unprompt.evaluation.presets.preset import MARKER


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """120 pictures of 30 prompts, 6 of them left out by a filter of the thesis."""
    colours = ("red", "green", "blue")
    made = [
        Example(SETS[i % 4], colour_picture(tmp_path / "new" / f"{i}.png", colours[i % 3], seed=500 + i), "",
                f"Some {colours[i % 3]} object, charcoal no. {i // 4} (8k)", "", "", "train", "", "")
        for i in range(120)
    ]  # fmt: skip
    write_fixture(made, tmp_path / "parts", pictures=120, side=24)
    return tmp_path / "parts"


@pytest.fixture
def run(library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("unprompt.systems.workshop.load_encoder", lambda name, device: FakeEncoder())

    def invoke(*arguments: object, code: int = 0) -> Result:
        words = ["--library", library_path, "--out", tmp_path / "out", "--resamples", 20]
        result = CliRunner().invoke(main, ["evaluate", *map(str, [*words, *arguments])])
        assert result.exit_code == code, result.output
        return result

    return invoke


def results(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_the_thesis_decides_filters_split_and_texts(run: Callable[..., Result], parts: Path, tmp_path: Path) -> None:
    shown = run("--split", parts, "--preset", "thesis-2023", "--systems", "neighbours", "--metrics", "rouge-l").stdout
    found = results(tmp_path)
    assert found["split"]["counts"]["pictures"] == 114
    assert {reason: n for reason, n in found["split"]["skipped"].items() if reason.startswith("filter")} == {
        "filter: cfg": 2,
        "filter: steps": 1,
        "filter: image nsfw": 1,
        "filter: prompt nsfw": 1,
        "filter: aspect ratio": 1,
    }
    assert found["split"]["counts"]["in_part"] == 5
    assert found["split"]["selection"]["group_by"] == "random"
    assert found["preset"]["genuine"] is False
    assert not any(each["comparable"] for each in found["preset"]["published"])
    assert "marked as NOT DiffusionDB's" in shown
    assert "published: CNN+LSTM, bleu-thesis-4 1.1; not comparable" in shown
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    normalise = load_preset("thesis-2023").normalise
    said = [normalise(each["systems"]["neighbours"]["answer"]) for each in answers]
    meant = [normalise(each["truth"]) for each in answers]
    assert "8k" in answers[0]["truth"]
    assert "8k" not in meant[0]
    value = found["systems"]["neighbours"]["metrics"]["rouge-l"]["value"]
    assert value == pytest.approx(load_metric("rouge-l")(said, meant).corpus)
    assert value != pytest.approx(load_metric("rouge-l")(said, [each["truth"] for each in answers]).corpus)


def test_genuine_parts_have_the_reasons_of_the_figures(run: Callable[..., Result], parts: Path, tmp_path: Path) -> None:
    (parts / MARKER).unlink()
    shown = run("--split", parts, "--preset", "nyu-2023", "--systems", "neighbours", "--metrics", "rouge-l").stdout
    assert "published: CLIP Interrogator, sentence-cosine 0.458; not comparable" in shown
    assert "the pictures that Kaggle's competition kept to itself" in " ".join(shown.split())
    assert "ofa:NAME" in shown
    assert results(tmp_path)["split"]["counts"]["pictures"] == 120


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--preset", "thesis-2022"], "unknown preset 'thesis-2022' (did you mean thesis-2023?)", 1),
        (["--preset", "nyu-2023", "--part", "train"], "--preset nyu-2023 decides --part (test)", 2),
        (["--preset", "nyu-2023", "--format", "pairs"], "decides --format (diffusiondb)", 2),
        ([], "Missing option '--systems'", 2),
    ],
)
def test_wrong_use(arguments: list[str], says: str, code: int, run: Callable[..., Result], parts: Path) -> None:
    assert says in run("--split", parts, *arguments, code=code).stderr


def test_a_preset_wants_parts(run: Callable[..., Result], tmp_path: Path) -> None:
    colour_picture(tmp_path / "folder" / "a.png", "red")
    result = run("--split", tmp_path / "folder", "--preset", "thesis-2023", "--systems", "neighbours", code=1)
    assert "no DiffusionDB parts" in result.stderr
