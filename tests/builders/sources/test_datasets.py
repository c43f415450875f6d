"""Data sets of Hugging Face: parquet with pictures in it, folders that were saved, names."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes import PALETTE, FakeEncoder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.entries import InlineEntry
from unprompt.builders.sources import SourceOptions, open_source
from unprompt.captioners.data.library import parse_uri
from unprompt.errors import SourceError
from unprompt.index.library import Library
from unprompt.pictures.archives import _open_archive
from unprompt.pictures.opening import PictureError, read_bytes
from unprompt.types import Entry, Picture, Skipped


def pictures(tmp_path: Path, count: int = 8) -> list[bytes]:
    colours = list(PALETTE)[:count]
    return [colour_picture(tmp_path / "made" / f"{c}.png", c).read_bytes() for c in colours]


def struct_table(tmp_path: Path, **columns: Any) -> pa.Table:
    cells = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pictures(tmp_path))]
    texts = [f"a {colour} thing" for colour in PALETTE]
    return pa.table({"image": cells, "text": texts, **columns})


@pytest.mark.parametrize("workers", [0, 2])
def test_parquet_with_pictures(tmp_path: Path, workers: int) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    table = struct_table(tmp_path, seed=list(range(8)))
    pq.write_table(table.slice(0, 5), tmp_path / "set/data/train-00000-of-00002.parquet")
    pq.write_table(table.slice(5), tmp_path / "set/data/train-00001-of-00002.parquet")
    source = open_source(str(tmp_path / "set"))
    assert source.format == "datasets"
    assert len(source) == 8  # type: ignore[arg-type]
    report = build_library([source], tmp_path / "l", FakeEncoder(), workers=workers)
    assert (report.pictures, dict(report.skipped)) == (8, {})
    record = Library.open(tmp_path / "l").records([6])[0]
    assert record.prompt == "a cyan thing"
    assert record.image == f"{tmp_path / 'set/data/train-00001-of-00002.parquet'}!1"
    assert record.metadata["sha256"] == hashlib.sha256(pictures(tmp_path)[6]).hexdigest()
    assert record.metadata["seed"] == "6"
    assert build_library([source], tmp_path / "l", FakeEncoder(), workers=workers).known == 8


def test_parquet_with_plain_bytes_and_lists_of_captions(tmp_path: Path) -> None:
    data = pictures(tmp_path, 3)
    table = pa.table({"jpg": [data[0], None, data[2]], "captions": [["one", "two", ""], ["lost"], []]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no prompt column; it has jpg, captions; name one with --prompt-column"):
        open_source(str(tmp_path / "a.parquet"))
    found = list(open_source(str(tmp_path / "a.parquet"), options=SourceOptions(prompt_column="captions")))
    assert [item.prompt if isinstance(item, Entry) else item.reason for item in found] == [
        "one", "two", "bad row", "no prompt",
    ]  # fmt: skip
    encoder = FakeEncoder()
    report = build_library([found[:2]], tmp_path / "l", encoder, workers=0)
    assert (report.pictures, encoder.images_encoded) == (2, 1)


def test_a_path_without_bytes_is_looked_for_beside_the_table(tmp_path: Path) -> None:
    colour_picture(tmp_path / "there.png", "red")
    cells = [{"bytes": None, "path": "there.png"}, {"bytes": None, "path": "gone.png"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": pa.array(cells), "prompt": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError):
        open_source(str(tmp_path / "none.parquet"))
    there, gone, nothing = open_source(str(tmp_path / "a.parquet"))
    assert isinstance(there, Entry)
    assert not isinstance(there, InlineEntry)
    assert [item.reason for item in (gone, nothing) if isinstance(item, Skipped)] == ["missing", "bad row"]


def test_broken_pictures_are_skipped(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [b"no picture", pictures(tmp_path, 1)[0]], "prompt": ["a", "b"]}), tmp_path / "a.parquet"
    )
    report = build_library([open_source(str(tmp_path / "a.parquet"))], tmp_path / "l", FakeEncoder(), workers=0)
    assert (report.pictures, dict(report.skipped)) == (1, {"unreadable": 1})


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    table = struct_table(tmp_path)
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.rename_columns(["image", "words"]), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"b\.parquet: no column 'text', which a\.parquet has"):
        list(open_source(str(tmp_path)))


def test_a_broken_file_among_good_ones_is_not_left_out(tmp_path: Path) -> None:
    pq.write_table(struct_table(tmp_path), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    for format in ("auto", "datasets"):
        with pytest.raises(SourceError, match=r"b\.parquet: not a readable parquet file"):
            open_source(str(tmp_path), format)


def hugging_face(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="needs the datasets extra")
    cells = [{"bytes": data, "path": None} for data in pictures(tmp_path)]
    features = datasets.Features({"picture": datasets.Image(), "prompt": datasets.Value("string")})
    return datasets, datasets.Dataset.from_dict(
        {"picture": cells, "prompt": [f"a {colour} thing" for colour in PALETTE]}, features=features
    )


def test_a_saved_data_set(tmp_path: Path) -> None:
    _, saved = hugging_face(tmp_path)
    saved.save_to_disk(str(tmp_path / "saved"))
    source = open_source(str(tmp_path / "saved"))
    assert source.format == "datasets"
    entries = [item for item in source if isinstance(item, InlineEntry)]
    assert [entry.data for entry in entries] == pictures(tmp_path)
    assert entries[2].picture is not None
    assert entries[2].picture.uri == f"{tmp_path / 'saved'}!2"
    report = build_library([source], tmp_path / "l", FakeEncoder(), workers=2)
    assert (report.pictures, report.skipped) == (8, {})


def test_a_saved_data_set_of_several_splits(tmp_path: Path) -> None:
    datasets, saved = hugging_face(tmp_path)
    both = datasets.DatasetDict({"train": saved.select(range(5)), "test": saved.select(range(5, 8))})
    both.save_to_disk(str(tmp_path / "saved"))
    entries = [item for item in open_source(str(tmp_path / "saved")) if isinstance(item, InlineEntry)]
    assert [entry.data for entry in entries] == pictures(tmp_path)
    assert entries[5].picture is not None
    assert entries[5].picture.uri == f"{tmp_path / 'saved'}:test!0"


def test_a_saved_data_set_that_is_damaged(tmp_path: Path) -> None:
    _, saved = hugging_face(tmp_path)
    saved.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "saved").glob("*.arrow"):
        path.unlink()
    with pytest.raises(SourceError, match="not a readable data set") as caught:
        list(open_source(str(tmp_path / "saved")))
    assert "\n" not in str(caught.value)


def reopened(place: str) -> bytes:
    """What a record's picture is opened as: by the parsed uri, or by a path that is the whole uri."""
    assert read_bytes(parse_uri(place)) == read_bytes(Picture(*place.rpartition("!")[::2]))
    return read_bytes(parse_uri(place))


def places(source: Iterable[Entry | Skipped]) -> dict[str, bytes]:
    return {item.picture.uri: item.data for item in source if isinstance(item, InlineEntry) and item.picture}


def check_reopened(found: dict[str, bytes], total: int) -> None:
    assert len(found) == total
    for order in (1, -1):
        for place, data in list(found.items())[::order]:
            assert reopened(place) == data


def test_rows_of_parquet_are_opened_again(tmp_path: Path) -> None:
    made = pictures(tmp_path)
    rows = {"jpg": [data + bytes([i]) for i, data in enumerate(made * 20)], "prompt": ["a"] * 160}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", row_group_size=70)
    check_reopened(places(open_source(str(tmp_path / "a.parquet"))), 160)
    for row in (0, 159, 3, 71, 70, 69, 140):
        assert reopened(f"{tmp_path / 'a.parquet'}!{row}") == rows["jpg"][row]
    for row, says in (("160", "no such member"), ("-1", "no such member"), ("word/3", "no such member")):
        with pytest.raises(PictureError, match=says):
            read_bytes(Picture(str(tmp_path / "a.parquet"), row))
    with pytest.raises(PictureError, match=r"gone\.parquet!3: missing \(no such file\)"):
        read_bytes(parse_uri(f"{tmp_path / 'gone.parquet'}!3"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PictureError, match=r"bad\.parquet!3: unreadable") as caught:
        read_bytes(parse_uri(f"{tmp_path / 'bad.parquet'}!3"))
    assert "\n" not in str(caught.value)


def test_rows_of_tables_with_two_columns_of_pictures_name_theirs(tmp_path: Path) -> None:
    made = pictures(tmp_path)
    depth = [{"bytes": data, "path": None} for data in made[::-1]]
    pq.write_table(struct_table(tmp_path, depth=depth), tmp_path / "a.parquet")
    found = places(open_source(str(tmp_path / "a.parquet"), options=SourceOptions(image_column="depth")))
    assert list(found)[2] == f"{tmp_path / 'a.parquet'}!depth/2"
    assert list(found.values()) == made[::-1]
    check_reopened(found, 8)
    with pytest.raises(PictureError, match="columns of pictures are image and depth, and 2 does not say which"):
        read_bytes(Picture(str(tmp_path / "a.parquet"), "2"))


def test_rows_of_saved_data_sets_are_opened_again(tmp_path: Path) -> None:
    datasets, saved = hugging_face(tmp_path)
    saved.save_to_disk(str(tmp_path / "one"))
    both = datasets.DatasetDict({"train": saved.select(range(5)), "test": saved.select(range(5, 8))})
    both.save_to_disk(str(tmp_path / "both"))
    check_reopened(places(open_source(str(tmp_path / "one"))), 8)
    check_reopened(places(open_source(str(tmp_path / "both"))), 8)
    build_library([open_source(str(tmp_path / "both"))], tmp_path / "l", FakeEncoder(), workers=0)
    record = Library.open(tmp_path / "l").records([6])[0]
    assert record.image is not None
    assert hashlib.sha256(reopened(record.image)).hexdigest() == record.metadata["sha256"]
    for place, says in (("both:train!5", "no such member"), ("both:valid!0", "cannot be opened .*restore the folder")):
        with pytest.raises(PictureError, match=says) as caught:
            read_bytes(parse_uri(str(tmp_path / place)))
        assert "\n" not in str(caught.value)


def test_rows_of_data_sets_by_name_are_opened_again_while_they_are_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets, saved = hugging_face(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "named").mkdir()
    saved.select(range(5)).to_parquet(str(tmp_path / "named/train.parquet"))
    saved.select(range(5, 8)).to_parquet(str(tmp_path / "named/test.parquet"))
    found = places(open_source(f"datasets:{tmp_path / 'named'}"))
    assert list(found)[6] == f"datasets:{tmp_path / 'named'}:test!1"
    check_reopened(found, 8)
    check_reopened(places(open_source(f"datasets:{tmp_path / 'named'}:train[1:3]")), 2)
    _open_archive.cache_clear()
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(PictureError, match=r"named:test!1: missing \(the data set cannot be opened") as caught:
        read_bytes(parse_uri(f"datasets:{tmp_path / 'named'}:test!1"))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("**/*.arrow"))  # it was not prepared behind the user's back


def test_reopening_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    _open_archive.cache_clear()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PictureError, match=r"datasets:someone/x:train!3: missing .*unprompt\[datasets\]"):
        read_bytes(parse_uri("datasets:someone/x:train!3"))


def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, saved = hugging_face(tmp_path)
    asked = []

    def load(name: str, split: str | None = None) -> Any:
        asked.append((name, split))
        return saved if split else datasets.DatasetDict({"train": saved, "test": saved.select([0])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source("datasets:someone/pictures:train")
    entries = [item for item in source if isinstance(item, InlineEntry)]
    assert entries[7].picture is not None
    assert entries[7].picture.uri == "datasets:someone/pictures:train!7"
    assert len(list(open_source("datasets:someone/pictures"))) == 9
    assert asked == [("someone/pictures", "train"), ("someone/pictures", None)]
    with pytest.raises(SourceError, match="has format datasets, not folder"):
        open_source("datasets:someone/pictures", "folder")
    with pytest.raises(SourceError, match="needs a name"):
        open_source("datasets:")


def test_a_name_without_a_network_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, _ = hugging_face(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="where there is a network and give its folder") as caught:
        open_source("datasets:nobody/no-such-set:train")
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install 'unprompt\[datasets\]'"):
        open_source("datasets:someone/pictures")
