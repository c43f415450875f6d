"""``unprompt embed`` and ``unprompt embed-train`` on small libraries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_folder, colour_picture, normalise, word_vector
from tiny_library import write_library
from unprompt.cli import main
from unprompt.evaluation.embedding.output import JOURNAL
from unprompt.evaluation.metrics import sentence_cosine
from unprompt.evaluation.metrics.kaggle import read_submission
from unprompt.types import Embeddings


def encode(texts: Sequence[str]) -> Embeddings:
    words = [text.replace(",", " ").split() for text in texts]
    return normalise(np.array([np.sum([word_vector(word, 384) for word in each], axis=0) for each in words]))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    torch.set_num_threads(1)
    encoder = FakeEncoder()
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: encoder)
    monkeypatch.setattr(sentence_cosine, "load_encode", lambda: encode)
    monkeypatch.setattr("unprompt.evaluation.embedding.neighbours.load_encode", lambda: encode)
    return encoder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_library(tmp_path / "library", FakeEncoder(), colour_folder(tmp_path / "corpus", 64))
    return tmp_path / "library"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, colour in (("b1", "red"), ("a2", "blue"), ("c3", "green")):
        colour_picture(tmp_path / "queries" / f"{name}.png", colour, seed=99)
    return tmp_path / "queries"


def run(command: str, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [command, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_submission_from_neighbours(library: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission.csv"
    run("embed", pictures, "--library", library, "--from", "neighbours", "--out", out)
    read = read_submission(out)
    assert read.ids == ("a2", "b1", "c3")
    words = encode(["blue", "red", "green"])
    similar = read.embeddings @ words.T
    assert (similar.argmax(axis=1) == np.arange(3)).all()
    assert not (tmp_path / f"submission.csv{JOURNAL}").exists()


def test_a_head_is_trained_and_mixed(library: Path, pictures: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.safetensors"
    report = json.loads(
        run("embed-train", "--library", library, "--out", head, "--epochs", 5, "--hidden", 16, "--json").stdout
    )
    assert report["dev"]["mix"] >= max(report["dev"]["head"], report["dev"]["neighbours"])
    again = tmp_path / "again.safetensors"
    shown = run("embed-train", "--library", library, "--out", again, "--epochs", 5, "--hidden", 16)
    assert again.read_bytes() == head.read_bytes()
    assert "pictures learnt from" in shown.stdout
    rows = {}
    for source in ("head", "neighbours", "mix"):
        out = tmp_path / f"{source}.npy"
        run("embed", pictures, "--library", library, "--head", head, "--from", source, "--format", "npy", "--out", out)
        rows[source] = np.load(out, allow_pickle=False)
    weight = report["mixing"]["weight"]
    expected = normalise((1 - weight) * rows["head"] + weight * rows["neighbours"])
    np.testing.assert_allclose(rows["mix"], expected, atol=1e-5)
    assert [Path(p).name for p in (tmp_path / "mix.npy.txt").read_text().splitlines()] == ["a2.png", "b1.png", "c3.png"]


def test_the_engines_answers_are_embedded(library: Path, pictures: Path, tmp_path: Path) -> None:
    run("embed", pictures / "b1.png", "--library", library, "--from", "prompt", "--format", "jsonl", "--out",
        tmp_path / "one.jsonl")  # fmt: skip
    answered = json.loads(run("query", pictures / "b1.png", "--library", library, "--json").stdout)
    row = json.loads((tmp_path / "one.jsonl").read_text())
    assert row["image"] == str(pictures / "b1.png")
    np.testing.assert_allclose(row["embedding"], encode([answered["final"]["prompt"]])[0], atol=1e-6)


def test_given_prompts_are_embedded_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("image,prompt\nx/b.png,a red cat\na.png,a blue dog\n")
    run("embed", "--prompts", tmp_path / "answers.csv", "--out", tmp_path / "submission.csv")
    read = read_submission(tmp_path / "submission.csv")
    assert read.ids == ("a", "b")
    np.testing.assert_allclose(read.embeddings, encode(["a blue dog", "a red cat"]), atol=1e-7)


def test_a_killed_run_goes_on(
    library: Path, pictures: Path, tmp_path: Path, small_parts: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, arguments = tmp_path / "out.csv", ("--library", library, "--from", "neighbours", "--batch-size", 1)
    run("embed", pictures, *arguments, "--out", tmp_path / "whole.csv")
    real, before = small_parts.encode_images, small_parts.images_encoded

    def dies_at_the_third(images: Sequence[object]) -> Embeddings:
        if small_parts.images_encoded - before == 2:
            raise KeyboardInterrupt
        return real(images)

    monkeypatch.setattr(small_parts, "encode_images", dies_at_the_third)
    run("embed", pictures, *arguments, "--out", out, code=1)
    assert not out.exists()
    assert (tmp_path / f"out.csv{JOURNAL}").exists()
    monkeypatch.setattr(small_parts, "encode_images", real)
    run("embed", pictures, *arguments, "--out", out)
    assert small_parts.images_encoded - before == 3
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_torn_picture_is_left_out_with_a_warning(library: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "torn.png").write_bytes(b"nothing")
    result = run("embed", pictures, "--library", library, "--from", "neighbours", "--out", tmp_path / "out.csv", code=1)
    assert "warning" in result.stderr
    assert "torn.png" in result.stderr
    assert len(read_submission(tmp_path / "out.csv").ids) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "mix"], "no head is packaged for encoder 'fake'"),
        (["--from", "guess"], "unknown source 'guess'"),
        (["--format", "csv", "--from", "neighbours"], "unknown format 'csv'"),
        (["--head", "missing", "--from", "head"], "cannot read the head missing"),
    ],
)
def test_errors_are_one_line(arguments: list[str], says: str, library: Path, pictures: Path, tmp_path: Path) -> None:
    result = run("embed", pictures, "--library", library, *arguments, "--out", tmp_path / "x", code=1)
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_wrong_use(library: Path, pictures: Path, tmp_path: Path) -> None:
    for arguments, says in (
        (["--out", tmp_path / "x"], "either IMAGEs or --prompts"),
        ([pictures, "--out", tmp_path / "x"], "--from mix needs --library"),
    ):
        assert says in run("embed", *arguments, code=2).stderr


def test_two_pictures_of_one_id(library: Path, pictures: Path, tmp_path: Path) -> None:
    colour_picture(tmp_path / "more" / "a2.png", "red")
    result = run("embed", pictures, tmp_path / "more", "--library", library, "--from", "neighbours", "--out",
                 tmp_path / "x", code=1)  # fmt: skip
    assert "have one id, 'a2'" in result.stderr


def test_a_library_of_too_few_prompts(tmp_path: Path) -> None:
    write_library(tmp_path / "few", FakeEncoder(), colour_folder(tmp_path / "corpus", 1))
    result = run("embed-train", "--library", tmp_path / "few", "--out", tmp_path / "head", code=1)
    assert "use a library of more prompts" in result.stderr
