"""The captioners that the package brings: their files, their cards, and that they caption offline."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw
from safetensors import safe_open

from unprompt.captioners.captioner import TrainedCaptioner
from unprompt.captioners.registry import DEFAULT, LANGUAGE_MODEL, TRAINABLE, WEIGHTS, load_captioner, packaged
from unprompt.cli import main
from unprompt.types import Captioner

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "sdxl-fashion" / "images"
FOLDERS = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))
PLAIN = ("lstm", "transformer", "bridge")
LARGEST = 25_000_000
MACHINE = re.compile(r"(?<![\w./:])/(?:work|home|root|tmp|usr|var|opt|mnt|data|Users)\b|[A-Z]:\\|/\.cache")
PHOTO = "highest quality photo of {}yo brunette woman indoors in lounge room, {}"
NEIGHBOURS = [PHOTO.format(20, "tiered dress with ankle boots"), PHOTO.format(40, "wrap dress"), "portrait, Film Noir"]


@pytest.fixture(scope="module")
def drawn() -> Image.Image:
    """A house under the sun."""
    image = Image.new("RGB", (256, 256), (130, 180, 230))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 170, 256, 256), fill=(70, 140, 60))
    draw.rectangle((80, 110, 180, 210), fill=(170, 90, 60))
    draw.polygon(((70, 110), (130, 60), (190, 110)), fill=(90, 40, 30))
    draw.ellipse((190, 20, 235, 65), fill=(250, 220, 90))
    return image


@lru_cache
def load(name: str) -> Captioner:
    if name.startswith("bridge"):
        pytest.importorskip("transformers")
    return load_captioner(name)


def test_each_trainable_captioner_is_there() -> None:
    assert packaged() == sorted(PLAIN)
    assert sorted([*packaged(), LANGUAGE_MODEL]) == FOLDERS
    assert DEFAULT in packaged()
    assert {*PLAIN, LANGUAGE_MODEL} == {*TRAINABLE}


@pytest.mark.parametrize("name", FOLDERS)
def test_weights_are_small_and_in_half_precision(name: str) -> None:
    path = WEIGHTS / name / "model.safetensors"
    assert path.stat().st_size < LARGEST
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for key in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(key)
            assert tensor.dtype == torch.float16, key
            assert bool(tensor.isfinite().all()), key


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_tells_of_the_machine_of_training(name: str) -> None:
    files = sorted(path.name for path in (WEIGHTS / name).iterdir())
    assert files == ["README.md", "config.json", "loss.csv", "model.safetensors", "tokenizer.json"]
    for file in ("README.md", "config.json", "loss.csv"):
        found = MACHINE.search((WEIGHTS / name / file).read_text(encoding="utf-8"))
        assert found is None, f"{file}: {found}"


def test_machine_paths_are_found() -> None:
    for text in ('"file": "/work/a/tokenizer.json"', "/home/me", r"C:\models", "see ~/.cache/x"):
        assert MACHINE.search(text), text
    for text in ("https://example.org/data/x", "and/or", "a/home/b"):
        assert MACHINE.search(text) is None, text


@pytest.mark.parametrize("name", FOLDERS)
def test_cards_say_what_they_must(name: str) -> None:
    card = (WEIGHTS / name / "README.md").read_text(encoding="utf-8")
    facts = json.loads((WEIGHTS / name / "config.json").read_text(encoding="utf-8"))["unprompt"]
    training = facts["training"]
    for heading in ("## Data", "## Recipe", "## Figures", "## Limits"):
        assert heading in card, heading
    for licence in ("CC BY 4.0", "MIT", "OpenRAIL-M"):
        assert licence in card, licence
    for count in training["pairs"].values():
        assert f"{count:,}" in card
    assert f"unprompt train {facts['captioner']} " in card
    assert f"seed {training['configuration']['seed']}" in card
    assert f"{training['validation_loss']:.3f}" in card
    assert "No test" in card
    parameters = sum(np.prod(shape) for shape in shapes(name))
    assert f"{parameters:,}" in card


def shapes(name: str) -> list[list[int]]:
    with safe_open(WEIGHTS / name / "model.safetensors", "pt") as file:
        return [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118


@pytest.mark.parametrize("name", FOLDERS)
def test_the_curve_ends_where_the_card_says(name: str) -> None:
    facts = json.loads((WEIGHTS / name / "config.json").read_text(encoding="utf-8"))["unprompt"]
    rows = (WEIGHTS / name / "loss.csv").read_text(encoding="utf-8").splitlines()[1:]
    losses = [float(row.split(",")[3]) for row in rows if row.split(",")[3]]
    assert min(losses) == pytest.approx(facts["training"]["validation_loss"], abs=1e-4)
    assert losses.index(min(losses)) + 1 == facts["training"]["epoch"]


@pytest.mark.parametrize("name", packaged())
def test_it_captions_the_same_each_time(name: str, drawn: Image.Image) -> None:
    captioner = load(name)
    assert isinstance(captioner, TrainedCaptioner)
    assert {parameter.dtype for parameter in captioner.model.parameters()} == {torch.float32}
    (alone,) = captioner.caption([drawn], num_beams=3)
    assert alone == captioner.caption([drawn], num_beams=3)[0]
    assert alone[0].prompt
    assert all(each.parts[0].source == f"captioner:{name}" and each.score <= 0 for each in alone)
    assert [each.score for each in alone] == sorted((each.score for each in alone), reverse=True)
    (told,) = captioner.caption([drawn], num_beams=3, neighbours=[NEIGHBOURS])
    assert told != alone
    assert captioner.card.neighbours == 0  # they are mixed in


@pytest.mark.parametrize("name", packaged())
def test_a_real_picture_is_recognised(name: str) -> None:
    """A woman of the fashion set."""
    if not DATA.is_dir():
        pytest.skip(f"needs the pictures of {DATA.parent.name}, which are no part of the project")
    with Image.open(min(DATA.glob("*.webp"))) as file:
        (found,) = load(name).caption([file.convert("RGB")], neighbours=[NEIGHBOURS])
    assert "woman" in found[0].prompt


def test_the_default_writes_json_on_the_command_line(drawn: Image.Image, tmp_path: Path) -> None:
    load(DEFAULT)
    drawn.save(tmp_path / "house.png")
    lines = [CliRunner().invoke(main, ["caption", str(tmp_path / "house.png"), "--json"]).stdout for _ in range(2)]
    assert lines[0] == lines[1]
    (record,) = map(json.loads, lines[0].splitlines())
    assert record["captions"][0]["prompt"]
    assert record["captions"][0]["source"] == f"captioner:{DEFAULT}"


def test_bridges_speak_the_language_models_tokens() -> None:
    files = {(WEIGHTS / name / "tokenizer.json").read_bytes() for name in FOLDERS}
    assert len(files) == 1
