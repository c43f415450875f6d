"""Parts of DiffusionDB, as the data set lays them out."""

from __future__ import annotations

import datetime
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unprompt.builders.sources import DiffusionFilters, SourceOptions, open_source
from unprompt.builders.sources.diffusiondb_table import MetadataTable
from unprompt.errors import SourceError
from unprompt.pictures.opening import open_picture, read_bytes
from unprompt.types import Entry, Skipped

ROW = {"p": "a castle", "se": 1050684640, "c": 7.0, "st": 50, "sa": "k_lms"}


def picture(size: tuple[int, int] = (64, 64), format: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(stream, format)
    return stream.getvalue()


def write_part(root: Path, number: int, rows: dict[str, Any], packed: bool = False, **extra: bytes) -> Path:
    name = f"part-{number:06d}"
    files = {key: picture(format=key.rsplit(".", 1)[-1]) for key in rows} | {f"{name}.json": json.dumps(rows).encode()}
    files |= extra
    if packed:
        root.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for key, data in files.items():
                archive.writestr(key, data)
        return root / f"{name}.zip"
    (root / name).mkdir(parents=True)
    for key, data in files.items():
        (root / name / key).write_bytes(data)
    return root / name


def write_table(path: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    full = {"prompt": "unused", "seed": 1, "step": 50, "cfg": 7.0, "sampler": 8, "width": 64, "height": 64,
            "user_name": "x", "timestamp": datetime.datetime(2022, 8, 11, tzinfo=datetime.UTC), "image_nsfw": 0.1,
            "prompt_nsfw": 0.01}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([{**full, **row} for row in rows]), path, **options)


def read(path: Path, filters: DiffusionFilters = DiffusionFilters()) -> list[Entry | Skipped]:  # noqa: B008
    source = open_source(str(path), options=SourceOptions(diffusion_filters=filters))
    assert source.format == "diffusiondb"
    items = list(source)
    assert items == list(source)
    return items


def reasons(items: list[Entry | Skipped]) -> list[str]:
    return [item.reason if isinstance(item, Skipped) else "entry" for item in items]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_parts_as_folders_and_archives(packed: bool, suffix: str, tmp_path: Path) -> None:
    rows = {f"b.{suffix}": ROW, f"a.{suffix}": {**ROW, "p": "a tower", "sa": "ddim"}}
    part = write_part(tmp_path / "images", 1, rows, packed)
    write_part(tmp_path / "images", 2, {f"c.{suffix}": ROW}, not packed)
    for root in (tmp_path, tmp_path / "images"):
        items = read(root)
        assert [item.prompt for item in items] == ["a castle", "a tower", "a castle"]
    first, second = read(part)
    assert first.picture.uri == f"{part}!b.{suffix}" if packed else str(part / f"b.{suffix}")
    assert open_picture(first.picture, read_bytes(first.picture)).size == (64, 64)
    assert second.metadata == {
        "source": "DiffusionDB", "license": "CC0-1.0", "seed": "1050684640", "cfg": 7.0, "steps": 50, "sampler": "ddim",
        "width": 64, "height": 64,
    }  # fmt: skip


def test_large_with_two_folders_of_parts(tmp_path: Path) -> None:
    write_part(tmp_path / "diffusiondb-large-part-2", 10001, {"b.webp": {**ROW, "p": "second"}}, packed=True)
    write_part(tmp_path / "diffusiondb-large-part-1", 1, {"a.webp": {**ROW, "p": "first"}})
    write_table(tmp_path / "metadata-large.parquet", [{"image_name": "b.webp", "part_id": 10001, "sampler": 4}])
    first, second = read(tmp_path)
    assert (first.prompt, second.prompt) == ("first", "second")
    assert second.metadata["sampler"] == "k_euler_ancestral"
    assert second.metadata["timestamp"].startswith("2022-08-11")
    (alone,) = read(tmp_path / "diffusiondb-large-part-2")
    assert alone == second


def test_a_folder_wins_over_an_archive_of_the_same_part(tmp_path: Path) -> None:
    write_part(tmp_path, 1, {"a.png": {**ROW, "p": "packed"}}, packed=True)
    write_part(tmp_path, 1, {"a.png": {**ROW, "p": "unpacked"}})
    assert [item.prompt for item in read(tmp_path)] == ["unpacked"]


FAILING = {
    "aspect_ratio": ({"width": 768, "height": 512}, "filter: aspect ratio"),
    "skip_blurred": ({"image_nsfw": 2.0}, "filter: image nsfw"),
    "prompt_nsfw": ({"prompt_nsfw": 0.51}, "filter: prompt nsfw"),
    "min_cfg": ({"cfg": -1.0}, "filter: cfg"),
    "min_steps": ({"step": 9}, "filter: steps"),
}
PASSING = [{}, {"image_nsfw": 1.99}, {"prompt_nsfw": 0.5}, {"cfg": 0.0}, {"step": 10}, {"width": 512, "height": 512}]


@pytest.mark.parametrize("name", sorted(FAILING))
def test_each_filter_and_its_switch(name: str, tmp_path: Path) -> None:
    values, reason = FAILING[name]
    names = [f"{i}.png" for i in range(len(PASSING))]
    write_part(tmp_path, 1, dict.fromkeys([*names, "x.png"], ROW))
    rows = [{"image_name": key, "part_id": 1, **more} for key, more in zip(names, PASSING, strict=True)]
    write_table(tmp_path / "metadata.parquet", [*rows, {"image_name": "x.png", "part_id": 1, **values}])
    assert reasons(read(tmp_path)) == ["entry"] * len(PASSING) + [reason]
    off = DiffusionFilters(**{name: False if name == "skip_blurred" else None})
    assert reasons(read(tmp_path, off)) == ["entry"] * (len(PASSING) + 1)


def test_without_the_table_the_json_and_the_header_are_filtered(tmp_path: Path) -> None:
    rows = {"a.png": ROW, "wide.png": ROW, "few.png": {**ROW, "st": 5}, "neg.png": {**ROW, "c": -2}, "bad.png": ROW}
    part = write_part(tmp_path, 3, rows)
    (part / "wide.png").write_bytes(picture((64, 32)))
    (part / "bad.png").write_bytes(b"")
    assert reasons(read(part)) == ["entry", "filter: aspect ratio", "filter: steps", "filter: cfg", "unreadable"]


def test_rows_and_pictures_that_do_not_match(tmp_path: Path) -> None:
    rows = {"a.png": ROW, "gone.png": ROW, "empty.png": {**ROW, "p": " "}, "odd.png": 5}
    part = write_part(tmp_path, 1, rows, **{"more.png": picture()})
    (part / "gone.png").unlink()
    assert reasons(read(tmp_path)) == ["entry", "missing", "no prompt", "bad row", "no prompt"]


def test_broken_parts_are_skipped_whole(tmp_path: Path) -> None:
    write_part(tmp_path, 4, {"a.png": ROW})
    (tmp_path / "part-000001.zip").write_bytes(b"no archive")
    shutil.copytree(tmp_path / "part-000004", tmp_path / "part-000002")
    (write_part(tmp_path, 3, {"a.png": ROW}) / "part-000003.json").write_text("{broken")
    items = read(tmp_path)
    assert reasons(items) == ["unreadable", "unreadable", "unreadable", "entry"]
    assert [Path(item.uri).name for item in items[:3]] == ["part-000001.zip", "part-000002", "part-000003"]


def test_an_archive_made_on_a_mac_with_a_folder_inside(tmp_path: Path) -> None:
    path = tmp_path / "part-000001.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part-000001/part-000001.json", json.dumps({"a.png": ROW}))
        archive.writestr("part-000001/a.png", picture())
        archive.writestr("__MACOSX/part-000001/._a.png", b"x")
    (entry,) = read(path)
    assert entry.picture.member == "part-000001/a.png"


@pytest.mark.parametrize("ordered", [True, False])
def test_the_table_is_looked_up_by_part_whatever_its_order(ordered: bool, tmp_path: Path) -> None:
    rows = [
        {"image_name": f"{part}-{i}.png", "part_id": part, "seed": part * 100 + i}
        for part in range(1, 9)
        for i in range(5)
    ]
    if not ordered:
        rows = rows[::3] + rows[1::3] + rows[2::3]
    write_table(tmp_path / "metadata.parquet", rows, row_group_size=7)
    table = MetadataTable(tmp_path / "metadata.parquet")
    for part in (2, 3, 7, 8):
        found = table.part(part)
        assert {name: row["seed"] for name, row in found.items()} == {
            f"{part}-{i}.png": part * 100 + i for i in range(5)
        }
        assert "prompt" not in found[f"{part}-0.png"]
    assert table.part(9) == {}


def test_tables_that_are_not_diffusiondbs(tmp_path: Path) -> None:
    write_part(tmp_path, 1, {"a.png": ROW})
    pq.write_table(pa.table({"x": [1]}), tmp_path / "metadata.parquet")
    with pytest.raises(SourceError, match="columns image_name and part_id"):
        list(open_source(str(tmp_path)))
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match="no DiffusionDB parts"):
        open_source(str(tmp_path / "other"), "diffusiondb")
