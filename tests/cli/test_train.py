"""``unprompt train`` on tiny models: real files, no weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_folder, colour_picture
from tiny_captioner import SHAPES, TinyGrid
from unprompt.captioners.checkpoint import load_checkpoint
from unprompt.cli import main
from unprompt.types import Encoder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> list[TinyGrid]:
    torch.set_num_threads(1)
    grids: list[TinyGrid] = []

    def load_grid(name: str, device: str) -> TinyGrid:
        grids.append(TinyGrid())
        return grids[-1]

    def load_encoder(name: str, *, device: str) -> Encoder:
        return FakeEncoder()

    monkeypatch.setattr("unprompt.captioners.training.pictures.load_grid", load_grid)
    monkeypatch.setattr("unprompt.captioners.training.pictures.load_encoder", load_encoder)
    return grids


@pytest.fixture
def config(tmp_path: Path) -> Path:
    values = {
        "epochs": 2,
        "batch": 16,
        "data": {"split": "ungrouped-90-5-5", "max_tokens": 16},
        "tokenizer": {"vocabulary": 300},
        "model": SHAPES["transformer"],
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    colour_folder(tmp_path / "pictures", 60)
    return tmp_path / "pictures"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["train", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_source_is_trained_on(pictures: Path, config: Path, tmp_path: Path, small_parts: list[TinyGrid]) -> None:
    out = tmp_path / "out"
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "broken.txt").write_text("a prompt")
    result = run("transformer", "--source", pictures, "--config", config, "--set", "seed=3", "--out", out)
    assert "broken.png: unreadable" in result.stderr
    assert "nats a token after epoch" in result.stdout
    assert "features" in result.stderr and "training" in result.stderr  # noqa: PT018 - the two bars
    assert {path.name for path in out.iterdir()} == {
        "cache", "config.json", "loss.csv", "loss.png", "model.safetensors", "report.json", "resume", "tokenizer.json",
    }  # fmt: skip
    assert load_checkpoint(out).card.training["configuration"]["seed"] == 3
    assert small_parts[0].encoded == 60
    again = run("lstm", "--source", pictures, "--out", tmp_path / "other", "--cache", out / "cache", "--json",
                "--set", "epochs=1", "--set", "data.split=ungrouped-90-5-5",
                *(f"--set=model.{key}={value}" for key, value in SHAPES["lstm"].items()))  # fmt: skip
    assert small_parts[1].encoded == 0, "the features were not taken from the cache"
    report = json.loads(again.stdout)
    assert (report["captioner"], report["epochs"], report["pairs"]["test"]) == ("lstm", 1, report["pairs"]["test"])


@pytest.mark.parametrize("kind", ["library", "source"])
def test_neighbours_come_from_the_library_or_the_encoder(
    kind: str, library_path: Path, pictures: Path, config: Path, tmp_path: Path
) -> None:
    where = library_path if kind == "library" else pictures
    run("transformer", f"--{kind}", where, "--config", config, "--set", "neighbours=2", "--out", tmp_path / "out")
    card = load_checkpoint(tmp_path / "out").card
    assert (card.neighbours, card.encoder, card.encoder_fingerprint) == (2, "fake", FakeEncoder().fingerprint)


def test_a_language_model_needs_no_pictures(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a picture of {i} cats\n" for i in range(60)))
    settings = [f"--set=model.{key}={value}" for key, value in SHAPES["prompt-lm"].items()]
    run("prompt-lm", "--source", prompts, "--set", "epochs=1", "--set", "tokenizer.vocabulary=300", *settings,
        "--out", tmp_path / "out")  # fmt: skip
    assert load_checkpoint(tmp_path / "out").model.name == "prompt-lm"


def test_coco_captions_are_a_source(config: Path, tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i:012d}.png"} for i in range(40)]
    captions = [{"image_id": i % 40, "caption": f"Picture {i} of something red."} for i in range(80)]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    for image in images:
        colour_picture(tmp_path / "val2017" / str(image["file_name"]), "red", seed=int(str(image["id"])))
    out = tmp_path / "out"
    run(
        "transformer",
        "--source",
        file,
        "--format",
        "coco",
        "--config",
        config,
        "--set",
        "data.text=plain",
        "--out",
        out,
    )
    assert load_checkpoint(out).card.text == "plain"
    assert sum(json.loads((out / "report.json").read_text())["pairs"].values()) == 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cnn", "--source", "{p}"], "unknown captioner 'cnn': use one of lstm"),
        (["lstm", "--source", "{p}", "--set", "batch=0"], "batch is 0: give 1 or more"),
        (["lstm", "--source", "{p}", "--set", "model.wide=3"], "unknown option model.wide of lstm"),
        (["lstm", "--source", "nowhere"], "nowhere: no such file or folder"),
        (["lstm", "--source", "{p}", "--config", "none.toml"], "cannot read the configuration none.toml"),
        (["lstm", "--source", "{p}", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, pictures: Path, tmp_path: Path) -> None:
    result = run(*(a.format(p=pictures) for a in arguments), "--out", tmp_path / "out", code=1)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line


def test_either_a_library_or_sources(tmp_path: Path) -> None:
    assert "give either --library or --source" in run("lstm", "--out", tmp_path, code=2).stderr


def test_help_is_light() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from unprompt.cli.train import train; "
        "from unprompt.cli.caption import caption; "
        "assert all(CliRunner().invoke(c, ['--help']).exit_code == 0 for c in (train, caption)); "
        "assert not {'torch', 'faiss', 'transformers', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
