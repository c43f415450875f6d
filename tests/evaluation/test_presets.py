"""Published protocols as data, and a fixture in DiffusionDB's format that they run on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from fakes import colour_picture
from unprompt.builders.sources import DiffusionFilters, SourceOptions, open_source
from unprompt.encoders.training.data import SETS, Example, load_examples
from unprompt.errors import EvaluationError
from unprompt.evaluation.metrics import load_metric
from unprompt.evaluation.presets import PRESETS, Filters, load_preset
from unprompt.evaluation.presets.fixture import USER, write_fixture
from unprompt.evaluation.presets.preset import MARKER, Published, is_marked
from unprompt.types import Entry, Skipped

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = {"width": 512, "height": 512, "image_nsfw": 0.1, "prompt_nsfw": 0.1, "cfg": 7.0, "steps": 50}


def examples(folder: Path, total: int = 50) -> list[Example]:
    return [
        Example(
            SETS[i % 4], colour_picture(folder / f"{i}.png", "red", seed=i), "", f"prompt {i}", "", "", "train", "", ""
        )
        for i in range(total)
    ]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_metric_and_figure_of_a_preset_is_known(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    for metric in (*preset.metrics, *(figure.metric for figure in preset.published)):
        assert load_metric(metric).name == metric
    assert all(figure.reason for figure in preset.published)
    json.dumps(preset.to_dict())


def test_unknown_presets_get_a_suggestion() -> None:
    with pytest.raises(EvaluationError, match=r"did you mean thesis-2023\?\): use one of thesis-2023, nyu-2023"):
        load_preset("thesis-2024")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"cfg": -0.5}, "cfg"),
        ({"cfg": 0.0}, ""),
        ({"steps": 9}, "steps"),
        ({"steps": 10}, ""),
        ({"image_nsfw": 2.0}, "image_nsfw"),
        ({"image_nsfw": 0.99}, ""),
        ({"prompt_nsfw": 0.51}, "prompt_nsfw"),
        ({"width": 640}, "aspect_ratio"),
    ],
)
def test_filters_of_the_thesis(change: dict[str, float], fault: str) -> None:
    preset = load_preset("thesis-2023")
    assert preset.filters.why_not(GOOD | change) == fault
    assert preset.keeps(GOOD | change) == (fault == "")
    assert preset.keeps({})
    assert load_preset("nyu-2023").keeps(GOOD | change)


def test_texts_of_the_thesis_are_thirty_plain_words() -> None:
    preset = load_preset("thesis-2023")
    assert preset.normalise("A Cat, 8k, (by Greg); 1.2!") == "a cat by greg"
    assert preset.normalise("word " * 40) == " ".join(["word"] * 30)
    assert load_preset("nyu-2023").normalise("A  Cat, 8k") == "A  Cat, 8k"


def test_splits() -> None:
    ids, prompts = [str(i) for i in range(400)], [f"prompt {i // 4}" for i in range(400)]
    thesis = load_preset("thesis-2023").split(ids, prompts)
    assert Counter(thesis) == {"train": 360, "dev": 20, "test": 20}
    assert any(len(set(thesis[i : i + 4])) > 1 for i in range(0, 400, 4)), "the thesis splits pictures, not prompts"
    assert load_preset("thesis-2023").split(ids, prompts, seed=1) != thesis
    grouped = load_preset("nyu-2023").split(ids, prompts)
    assert all(len(set(grouped[i : i + 4])) == 1 for i in range(0, 400, 4))
    with pytest.raises(EvaluationError, match="one prompt a picture"):
        load_preset("nyu-2023").split(ids, prompts[1:])


def test_nothing_is_comparable_on_other_pictures(tmp_path: Path) -> None:
    preset = replace(load_preset("nyu-2023"), published=(Published("a system", "rouge-l", 0.5, True, "the same data"),))
    assert [figure.comparable for figure in preset.beside(genuine=True)] == [True]
    assert not any(figure.comparable for figure in preset.beside(genuine=False))
    (tmp_path / "part-000001").mkdir()
    assert not is_marked(tmp_path / "part-000001")
    (tmp_path / MARKER).write_text("")
    assert is_marked(tmp_path / "part-000001")
    assert is_marked(tmp_path)


def test_the_fixture_is_read_as_diffusiondb_and_filtered(tmp_path: Path) -> None:
    counts = write_fixture(examples(tmp_path / "pictures"), tmp_path / "parts", pictures=41, side=64)
    assert counts == {"pictures": 41, "parts": 1, "odd": 3}
    assert (tmp_path / "parts" / MARKER).is_file()
    table = pq.read_table(tmp_path / "parts" / "metadata.parquet")
    assert set(table.column("user_name").to_pylist()) == {USER}
    filters = load_preset("thesis-2023").filters
    source = open_source(
        str(tmp_path / "parts"), options=SourceOptions(diffusion_filters=DiffusionFilters(**filters.to_dict()))
    )
    assert source.format == "diffusiondb"
    found = list(source)
    assert sum(isinstance(each, Entry) for each in found) == 38
    assert {e.reason for e in found if isinstance(e, Skipped)} == {"filter: cfg", "filter: steps", "filter: image nsfw"}
    every = [
        entry
        for entry in open_source(
            str(tmp_path / "parts"), options=SourceOptions(diffusion_filters=DiffusionFilters(**Filters().to_dict()))
        )
        if isinstance(entry, Entry)
    ]
    assert sum(filters.keeps(entry.metadata) for entry in every) == 38
    assert Image.open(every[1].picture.path).size == (64, 64)


def test_the_fixture_is_the_same_each_time_and_never_overwrites(tmp_path: Path) -> None:
    made = examples(tmp_path / "pictures", 8)
    for name in ("a", "b"):
        write_fixture(made, tmp_path / name, pictures=4, seed=3, side=64)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second
    with pytest.raises(EvaluationError, match="is not empty"):
        write_fixture(made, tmp_path / "a")
    with pytest.raises(EvaluationError, match="no pictures"):
        write_fixture([], tmp_path / "c")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_fixture_of_real_pictures_takes_from_every_set(tmp_path: Path) -> None:
    whole = load_examples(SHARED)
    write_fixture(whole, tmp_path / "parts", pictures=8, side=64)
    found = [each.prompt for each in open_source(str(tmp_path / "parts")) if isinstance(each, Entry)]
    sets = {e.prompt: e.set for e in whole}
    assert {sets[prompt] for prompt in found} == set(SETS)
