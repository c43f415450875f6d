"""``unprompt caption`` on a tiny trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_picture
from tiny_captioner import TinyGrid, colour_pairs, tiny_config, tiny_pictures
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.registry import DEFAULT, load_captioner, packaged
from unprompt.captioners.texts import LazyTexts
from unprompt.captioners.train import train_captioner
from unprompt.captioners.training.pictures import Pictures, embed_pictures
from unprompt.cli import main
from unprompt.index.library import Library
from unprompt.types import Captioner, Embeddings, Entry


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config("transformer", "neighbours=2", "epochs=3")
    pairs, pictures = tiny_pictures(colour_pairs(folder / "pictures"), folder / "cache", config)
    encoder = FakeEncoder()
    neighbours = find_neighbours(pairs, embed_pictures(pairs, encoder, folder / "cache"), 2, encoder.encode_texts)
    told = Pictures(pictures.cache, pictures.rows, "tiny", neighbours, ("fake", encoder.fingerprint))
    train_captioner("transformer", pairs, told, config, folder / "mine")
    return folder / "mine"


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small parts for the real ones; gives the neighbours' prompts that the captioner was told."""
    texts: list[str] = []

    def encode(self: LazyTexts, prompts: Sequence[str]) -> Embeddings:
        texts.extend(prompts)
        return FakeEncoder().encode_texts(prompts)

    monkeypatch.setattr(LazyTexts, "__call__", encode)
    monkeypatch.setattr("unprompt.captioners.captioner.load_grid", lambda name, device: TinyGrid())
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: FakeEncoder())
    return texts


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return colour_picture(tmp_path / "red.png", "red", seed=4)


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["caption", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


def test_json_lines(trained: Path, picture: Path, tmp_path: Path) -> None:
    colour_picture(tmp_path / "more" / "blue.png", "blue")
    result = run(picture, tmp_path / "more", "--captioner", trained, "--num-beams", 3, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(picture), str(tmp_path / "more" / "blue.png")]
    for line in lines:
        assert 1 <= len(line["captions"]) <= 3
        for each in line["captions"]:
            assert {*each} == {"prompt", "score", "source"}
            assert each["prompt"]
            assert each["score"] <= 0
            assert each["source"] == "captioner:mine"


def test_text_for_people(trained: Path, picture: Path) -> None:
    first, *captions = run(picture, "--captioner", trained, "--num-beams", 2).stdout.splitlines()
    assert first == str(picture)
    assert captions
    assert all(line.startswith("  ") for line in captions)


def test_neighbours_of_a_library_are_told(
    trained: Path, picture: Path, library_path: Path, entries: list[Entry], told: list[str]
) -> None:
    assert "does worse alone" not in run(picture, "--captioner", trained, "--library", library_path).stderr
    assert len(told) == 2
    assert {*told} <= {entry.prompt for entry in entries}
    assert "red" in told[0]
    told.clear()
    assert "warning: mine learnt with neighbours and does worse alone" in run(picture, "--captioner", trained).stderr
    assert told == []


def test_unreadable_pictures_are_warned_of(trained: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    result = run(broken, tmp_path / "empty", picture, "--captioner", trained, "--json", code=1)
    assert json.loads(result.stdout)["image"] == str(picture)
    assert "broken.png: unreadable" in result.stderr
    assert "no pictures in this folder" in result.stderr


def test_mistakes_are_one_line(trained: Path, picture: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--captioner", "nothing"), "no captioner 'nothing'"),
        (("--captioner", tmp_path), "config.json: give a folder that `unprompt train` wrote"),
        (("--captioner", trained, "--library", tmp_path), "manifest"),
        (("--captioner", trained, "--device", "tpu"), "unknown device 'tpu'"),
        (("--captioner", trained, "--library", tmp_path, "--search-device", "mps"), "search device 'mps' is unknown"),
        (("--captioner", trained, "--library", tmp_path, "--where", "steps >> 3"), "at column 8"),
        (("--captioner", trained, "--backend", "redis://x"), "is no backend"),
    ):
        result = run(picture, *arguments, code=1)
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert message in line


def test_packaged_captioners_are_listed_without_a_picture() -> None:
    names = run("--list").stdout.split()
    assert names[0] == DEFAULT
    assert sorted(names) == packaged()


def test_the_default_captioner_writes(monkeypatch: pytest.MonkeyPatch, trained: Path, picture: Path) -> None:
    asked = []

    def load(name: str, device: str) -> Captioner:
        asked.append(name)
        return load_captioner(str(trained), device)

    monkeypatch.setattr("unprompt.captioners.registry.load_captioner", load)
    run(picture)
    assert asked == [DEFAULT]


def test_neighbours_are_found_on_a_device_and_under_a_condition(
    trained: Path, picture: Path, library_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    open_anywhere = Library.open.__func__  # type: ignore[attr-defined]

    def open_library(cls: type[Library], path: Path, search_device: str = "cpu") -> Library:
        searched.append(search_device)
        library: Library = open_anywhere(cls, path)
        return library

    monkeypatch.setattr("unprompt.index.gpu.device._torch_gpu_count", lambda: 2)
    monkeypatch.setattr("unprompt.index.gpu.device.faiss_gpu_count", lambda: 0)
    monkeypatch.setattr(Library, "open", classmethod(open_library))
    arguments = (picture, "--captioner", trained, "--library", library_path)
    run(*arguments, "--search-device", "cuda:1", "--where", "width >= 1")
    assert searched == ["cuda:1"]
    assert len(told) == 2
    told.clear()
    assert "warning: no picture meets --where 'width > 9999'" in run(*arguments, "--where", "width > 9999").stderr
    assert told == []


def test_neighbours_of_a_pushed_library_are_told(
    trained: Path, picture: Path, library_path: Path, tmp_path: Path, told: list[str]
) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite has no build for this platform")
    address = f"milvus:{tmp_path / 'pushed.db'}"
    pushed = CliRunner().invoke(main, ["push", str(library_path), "--to", address, "--index", "flat"])
    assert pushed.exit_code == 0, pushed.output
    here = run(picture, "--captioner", trained, "--library", library_path).stdout
    prompts = [*told]
    told.clear()
    there = run(picture, "--captioner", trained, "--backend", address)
    assert there.stdout == here
    assert "does worse alone" not in there.stderr
    assert told == prompts != []


@pytest.mark.parametrize("options", [("--where", "steps = 3"), ("--search-device", "cuda")])
def test_options_of_neighbours_want_a_library(trained: Path, picture: Path, options: tuple[str, str]) -> None:
    assert "give a --library to find them in" in run(picture, "--captioner", trained, *options, code=2).stderr
