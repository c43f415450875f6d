"""Tables that name pictures and prompts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import colour_picture
from unprompt.builders.sources import SourceOptions, open_source
from unprompt.builders.sources.common import clean_metadata
from unprompt.errors import SourceError
from unprompt.types import METADATA_KEYS, Entry, Picture, Skipped

ROWS = [
    {"file_name": "images/a.png", "text": "a red thing", "steps": "30", "tags": "x"},
    {"file_name": "images/b.png", "text": 'a "quoted", blue thing', "steps": "many", "tags": ""},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    colour_picture(tmp_path / "images" / "a.png", "red")
    colour_picture(tmp_path / "images" / "b.png", "blue")
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path, options: SourceOptions = SourceOptions(), format: str = "auto") -> list[Entry | Skipped]:  # noqa: B008
    source = open_source(str(path), format, options)
    assert source.format == "pairs"
    items = list(source)
    assert items == list(source)
    return items


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.csv", "pairs.tsv", "pairs.parquet", "mine.csv"])
@pytest.mark.parametrize("named", ["file", "folder"])
def test_all_kinds_of_tables(name: str, named: str, folder: Path) -> None:
    table = write(folder / name, ROWS)
    a, b = read(table if named == "file" else folder)
    assert a == Entry("a red thing", Picture(str(folder / "images/a.png")), {"steps": 30, "tags": "x"})
    assert b == Entry('a "quoted", blue thing', Picture(str(folder / "images/b.png")), {})


def test_semicolons_as_spreadsheets_write_them(folder: Path) -> None:
    (folder / "pairs.csv").write_text("Image;Prompt\nimages/a.png;a red thing, with comma\n")
    (entry,) = read(folder)
    assert isinstance(entry, Entry)
    assert entry.prompt == "a red thing, with comma"


def test_columns_can_be_named(folder: Path) -> None:
    rows = [{"file_name": "nothing", "prompt": "wrong", "shown": "images/a.png", "words": "right"}]
    table = write(folder / "t.jsonl", rows)
    (entry,) = read(table, SourceOptions("shown", "words"))
    assert isinstance(entry, Entry)
    assert entry.prompt == "right"
    with pytest.raises(SourceError, match="no column 'absent'"):
        open_source(str(table), "pairs", SourceOptions("shown", "absent"))


def test_grids_give_four_cells_without_the_grids_size(folder: Path) -> None:
    layout = "2x2 grid of four samples, 150 px each"
    write(folder / "pairs.jsonl", [{"image": "images/a.png", "prompt": "p", "layout": layout, "width": 300}])
    items = read(folder)
    assert [item.picture.cell for item in items] == ["tl", "tr", "bl", "br"]
    assert {item.prompt for item in items} == {"p"}
    assert items[0].metadata == {"layout": layout}


def test_paths_that_leave_the_folder_are_refused(folder: Path) -> None:
    colour_picture(folder.parent / "outside.png", "red")
    names = [
        "../outside.png",
        "/etc/passwd",
        "images/../../outside.png",
        "images/../images/a.png",
        str(folder / "images/a.png"),
    ]
    write(folder / "pairs.jsonl", [{"image": name, "prompt": "p"} for name in names])
    assert [getattr(item, "reason", "entry") for item in read(folder)] == ["outside the source"] * 3 + ["entry"] * 2


def test_a_neighbour_of_like_name_is_outside(folder: Path) -> None:
    colour_picture(folder.parent / f"{folder.name}-more" / "a.png", "red")
    write(
        folder / "pairs.jsonl",
        [{"image": f"../{folder.name}-more/a.png", "prompt": "p"}, {"image": "images/a.png", "prompt": "p"}],
    )
    assert [getattr(item, "reason", "entry") for item in read(folder)] == ["outside the source", "entry"]


def test_windows_paths(folder: Path) -> None:
    write(folder / "pairs.jsonl", [{"image": r"images\a.png", "prompt": "p"}])
    assert read(folder) == [Entry("p", Picture(str(folder / "images/a.png")))]


def test_bad_rows_are_skipped_with_their_line(folder: Path) -> None:
    lines = [
        '{"image": "images/a.png", "prompt": "fine"}',
        "{broken",
        "",
        "[1, 2]",
        '{"image": 5, "prompt": "p"}',
        '{"image": "images/gone.png", "prompt": "p"}',
        '{"image": "images/b.png", "prompt": " "}',
        '{"image": "images/b.png", "prompt": ["p"]}',
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    skipped = [item for item in read(folder) if isinstance(item, Skipped)]
    table = folder / "pairs.jsonl"
    assert [(item.uri, item.reason) for item in skipped] == [
        (f"{table}:2", "bad row"),
        (f"{table}:4", "bad row"),
        (f"{table}:5", "bad row"),
        (str(folder / "images/gone.png"), "missing"),
        (str(folder / "images/b.png"), "no prompt"),
        (str(folder / "images/b.png"), "no prompt"),
    ]


def test_csv_rows_of_a_wrong_length_huge_fields_and_odd_bytes(folder: Path) -> None:
    huge = "word " * 60_000
    (folder / "pairs.csv").write_bytes(
        b"image,prompt\nimages/a.png\n" + f'images/a.png,"{huge}"\n'.encode() + b"images/b.png,caf\xe9\n"
    )
    items = read(folder)
    assert [getattr(item, "reason", "entry") for item in items] == ["bad row", "entry", "entry"]
    assert len(items[1].prompt) == len(huge) - 1
    assert items[2].prompt == "café"


def test_tables_without_what_is_needed(tmp_path: Path) -> None:
    colour_picture(tmp_path / "a.png", "red")
    write(tmp_path / "pairs.jsonl", [{"image": "a.png", "words": "p"}])
    with pytest.raises(SourceError, match=r"no prompt column .* --prompt-column"):
        open_source(str(tmp_path))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match="not a readable parquet"):
        open_source(str(tmp_path / "bad.parquet"), "pairs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no table"):
        open_source(str(tmp_path / "empty"), "pairs")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.floats(), max_size=3)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([*METADATA_KEYS, "Seed", "cfg_scale", "extra", " "]), VALUES))
def test_metadata_has_its_types_and_is_json(values: dict[str, Any]) -> None:
    cleaned = clean_metadata(values)
    json.dumps(cleaned, allow_nan=False)
    for key, value in cleaned.items():
        assert key.strip()
        if key in METADATA_KEYS:
            assert type(value) is METADATA_KEYS[key]
