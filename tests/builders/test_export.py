"""A library written out and built again answers as before, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fakes import FakeEncoder
from unprompt.builders.build import build_library
from unprompt.builders.export import EXPORTS, export_library
from unprompt.builders.sources import open_source
from unprompt.cli import main
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.types import Entry

QUERIES = ["a red thing", "oil painting", "blue sketch", "quiet"]


@pytest.fixture(params=["float16", "float32"])
def library(request: pytest.FixtureRequest, tmp_path: Path, entries: list[Entry]) -> Library:
    """Pictures in three shards, prompts alone in two, and metadata of every kind."""
    pictures = [
        Entry(entry.prompt, entry.picture, {"cfg": 7.3, "steps": 30 + i, "seed": str(2**63 + i), "note": [i, "ü"]})
        for i, entry in enumerate(entries)
    ]
    prompts = [Entry(f"quiet prompt {i}", None, {"source": "list"}, count=i + 1) for i in range(20)]
    path = tmp_path / "my.library"
    build_library([pictures, prompts], path, FakeEncoder(), shard_size=16, dtype=request.param, workers=0)
    return Library.open(path)


@pytest.mark.parametrize("format", list(EXPORTS))
def test_a_library_survives_the_round_trip(library: Library, tmp_path: Path, format: str) -> None:
    report = export_library(library, tmp_path / "out", format)
    assert (report.pictures, report.prompts) == (40, 20)
    encoder = FakeEncoder()
    source = open_source(str(tmp_path / "out"))
    built = build_library([source], tmp_path / "back", encoder, shard_size=16, dtype=library.manifest.dtype, workers=0)
    assert (built.imported, dict(built.skipped), encoder.images_encoded) == (60, {}, 0)
    back = Library.open(tmp_path / "back")
    assert back.verify() == []
    assert back.records(range(40)) == library.records(range(40))
    assert back.prompts(range(40)) == library.prompts(range(40))
    queries = FakeEncoder().encode_texts(QUERIES)
    for index in ("image_index", "prompt_index"):
        for left, right in zip(*(getattr(each, index).search(queries, 8) for each in (library, back)), strict=True):
            np.testing.assert_array_equal(left, right)


def test_clip_retrievals_reader_finds_row_i_in_every_file(library: Library, tmp_path: Path) -> None:
    export_library(library, tmp_path / "out", "clip-retrieval")
    tables = sorted((tmp_path / "out/metadata").glob("*.parquet"))
    arrays = [np.load(path) for path in sorted((tmp_path / "out/img_emb").glob("*.npy"))]
    assert [len(pd.read_parquet(table)) for table in tables] == [len(array) for array in arrays] == [16, 16, 8]
    frame = pd.concat(map(pd.read_parquet, tables))
    assert list(frame["caption"]) == [record.prompt for record in library.records(range(40))]
    assert {"image_path", "caption", "id"} <= set(frame.columns)
    assert (tmp_path / "out/image.index").read_bytes() == (library.path / "image.index").read_bytes()


def test_the_npy_export_is_one_array_and_one_table(library: Library, tmp_path: Path) -> None:
    export_library(library, tmp_path / "out", "npy")
    array, table = np.load(tmp_path / "out/img_emb.npy"), pd.read_parquet(tmp_path / "out/metadata.parquet")
    assert (array.shape, array.dtype) == ((40, 32), library.manifest.dtype)
    assert list(table["id"]) == [record.id for record in library.records(range(40))]


def test_removed_rows_and_empty_shards_leave_no_gap(library: Library, tmp_path: Path) -> None:
    from unprompt.index.remove import remove_rows

    remove_rows(library.path, [record.id for record in library.records(range(16, 32))])
    report = export_library(Library.open(library.path), tmp_path / "out", "clip-retrieval")
    assert report.pictures == 24
    names = [path.name for path in sorted((tmp_path / "out/img_emb").iterdir())]
    assert names == ["img_emb_0000.npy", "img_emb_0001.npy"]


def test_a_folder_that_holds_something_is_left_alone(library: Library, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(LibraryError, match="not an empty folder; give a new one"):
        export_library(library, tmp_path / "out", "npy")
    with pytest.raises(LibraryError, match="unknown format 'hdf5'; choose one of clip-retrieval, npy, parquet"):
        export_library(library, tmp_path / "new", "hdf5")
    assert not (tmp_path / "new").exists()


def test_the_command(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unprompt.encoders.load_encoder", lambda name="fake", device="cpu": FakeEncoder())
    run = CliRunner().invoke(main, ["export", str(library.path), str(tmp_path / "out"), "--format", "parquet"])
    assert run.exit_code == 0, run.output
    assert "40 pictures and 20 prompts without pictures" in run.output
    again = CliRunner().invoke(main, ["export", str(library.path), str(tmp_path / "out")])
    assert (again.exit_code, "not an empty folder" in again.output) == (1, True)
    arguments = [
        "build",
        str(tmp_path / "out"),
        "--library",
        str(tmp_path / "back"),
        "--encoder",
        "fake",
        "--workers",
        "0",
    ]
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 0, run.output
    assert "60 of these with embeddings made elsewhere, taken as they were" in run.output
    facts = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "back"), "--json"]).output)
    assert facts["imported"] == 60
