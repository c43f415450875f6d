"""Joining shards moves no row: indexes, prompts and answers are what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder, colour_folder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.vocabulary import add_fragments
from unprompt.errors import LibraryError
from unprompt.index.compact import Compaction, compact_library, joinable
from unprompt.index.library import Library
from unprompt.index.manifest import ShardInfo
from unprompt.index.remove import remove_rows
from unprompt.index.shards import SERIES, shard_origin
from unprompt.types import Entry, Fragment, Picture
from vectors import unit


def shards_of(path: Path) -> list[tuple[str, int, int, bool]]:
    return [(s.series, s.number, s.rows, s.imported) for s in Library.open(path).manifest.shards]


def untouched(path: Path) -> dict[str, bytes]:
    """All files of a library but its shards and its manifest."""
    folders = {name for series in SERIES.values() for name in (*series.arrays, series.table)}
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"]
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.parent.name not in folders}


def on_disk(path: Path) -> set[str]:
    folders = {name for series in SERIES.values() for name in (*series.arrays, series.table)}
    return {f"{folder}/{file.name}" for folder in folders for file in (path / folder).glob("*")}


def listed(path: Path) -> set[str]:
    manifest = Library.open(path).manifest
    return {name for s in manifest.shards for name in SERIES[s.series].files(s.number)}


def answers(path: Path) -> tuple[object, ...]:
    library = Library.open(path)
    assert library.image_index is not None
    assert library.prompt_index is not None
    queries = unit(6, library.dim, seed=4)
    images, texts = library.image_index.search(queries, 9), library.prompt_index.search(queries, 9)
    rows = list(range(len(library)))
    stored = [library.picture_texts(rows), np.concatenate(list(library.vectors("image"))), *library.vectors("text")]
    exact = [np.asarray(array).tobytes() for array in (*images, *texts, *stored)]
    return exact, library.records(rows), library.prompts(range(len(library.prompt_index)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    path = folder / "my.library"
    entries = [Entry(prompt, Picture(str(file))) for file, prompt in colour_folder(folder / "pictures", 40)]
    build_library([entries], path, FakeEncoder(), shard_size=16, workers=0)
    for number in range(5):
        picture = Picture(str(colour_picture(folder / f"late-{number}.png", "red", seed=50 + number)))
        broken = Picture(str(folder / "missing.png"))
        entries = [Entry(f"late {number}", picture), Entry(f"words {number}"), Entry("none", broken)]
        build_library([entries], path, FakeEncoder(), workers=0)
    add_fragments(path, [Fragment("red", "flavor")], FakeEncoder())
    return path


@pytest.fixture
def many(made: Path, tmp_path: Path) -> Path:
    """16, 16 and 8 rows, then five runs of one picture and one prompt each, a vocabulary, and skipped rows."""
    return Path(shutil.copytree(made, tmp_path / "my.library", copy_function=shutil.copy))


@pytest.mark.parametrize("index", ["Flat", "IVF4,SQfp16"])
@pytest.mark.parametrize("shard_size", [7, 17, 4096])
def test_rows_and_indexes_stay_as_they_were(many: Path, index: str, shard_size: int) -> None:
    build_library([[Entry("another")]], many, FakeEncoder(), index=index, workers=0)
    before, files, shards = answers(many), untouched(many), shards_of(many)
    done = compact_library(many, shard_size)
    assert Library.open(many).verify() == []
    assert answers(many) == before
    assert untouched(many) == files
    assert done.shards_before == len(shards)
    assert done.shards_after == len(shards_of(many)) < len(shards)
    assert {(s, max(n for t, n, *_ in shards if t == s)) for s in SERIES} <= {(s, n) for s, n, *_ in shards_of(many)}
    assert on_disk(many) == listed(many)
    assert compact_library(many, shard_size).rows_moved == 0


def test_the_report_counts_what_was_written(many: Path) -> None:
    before = sum((many / name).stat().st_size for name in listed(many))
    done = compact_library(many, 16)
    assert shards_of(many) == [
        ("pictures", 0, 16, False),
        ("pictures", 1, 16, False),
        ("pictures", 7, 13, False),
        ("prompts", 4, 5, False),
    ]
    after = sum((many / name).stat().st_size for name in listed(many))
    assert done == Compaction(13, 4, before, after, 8 + 5 + 5)


def test_what_is_full_is_not_written_again(many: Path) -> None:
    times = {name: (many / name).stat().st_mtime_ns for name in listed(many)}
    compact_library(many, 16)
    for number in (0, 1):
        for name in SERIES["pictures"].files(number):
            assert (many / name).stat().st_mtime_ns == times[name]


def test_a_joined_library_grows_and_shrinks(many: Path, made: Path) -> None:
    compact_library(many, 4096)
    encoder = FakeEncoder()
    pictures = sorted((made.parent / "pictures").glob("*.png"))
    known = zip(pictures, [record.prompt for record in Library.open(many).records(range(40))], strict=True)
    entries = [Entry(prompt, Picture(str(file))) for file, prompt in known]
    build_library([[*entries, Entry("words 3"), Entry("new words")]], many, encoder, workers=0)
    assert (encoder.images_encoded, Library.open(many).manifest.counts["pictures"]) == (0, 45)
    assert shards_of(many)[-2:] == [("prompts", 4, 5, False), ("prompts", 5, 1, False)]
    remove_rows(many, prompts=["late 2", "words 3"])
    assert Library.open(many).verify() == []
    assert len(Library.open(many)) == 44


def shard(rows: int, imported: bool = False, series: str = "pictures") -> ShardInfo:
    return ShardInfo(series, 0, rows, imported)


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([], []),
        ([shard(3)], []),
        ([shard(3), shard(3)], [2]),
        ([shard(9), shard(9)], []),  # two shards would be two again
        ([shard(9), shard(9), shard(2)], [3]),
        ([shard(3), shard(10), shard(3)], []),
        ([shard(3), shard(3, series="prompts"), shard(4, series="prompts")], [2]),
        ([shard(3), shard(3, True), shard(3)], []),
        ([shard(3), shard(3, True), shard(2, True), shard(3)], [2]),
        ([shard(3), shard(0, True), shard(3)], [3]),
        ([shard(0), shard(0, True)], [2]),
    ],
)
def test_neighbours_of_one_origin_are_joined(shards: list[ShardInfo], expected: list[int]) -> None:
    assert [len(run) for run in joinable(shards, 10)] == expected


def test_imported_shards_keep_their_mark(many: Path, tmp_path: Path) -> None:
    from unprompt.builders.sources import open_source

    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "img_emb.npy", unit(3, 32, seed=ord(name)))
        (folder / "prompts.txt").write_text("".join(f"{name} {i}\n" for i in range(3)))
        build_library([open_source(str(folder), "embeddings")], many, FakeEncoder(), workers=0)
    build_library([[Entry("last words")]], many, FakeEncoder(), workers=0)
    before = answers(many)
    assert [s[2] for s in shards_of(many) if s[3]] == [3, 3]
    compact_library(many)
    assert answers(many) == before
    assert [s[2:] for s in shards_of(many)] == [(45, False), (6, True), (6, False)]
    for name, number, _, imported in shards_of(many):
        assert shard_origin(many / SERIES[name].table_file(number))[1] == imported


def test_shards_without_rows_are_absorbed(many: Path) -> None:
    remove_rows(many, prompts=[f"words {i}" for i in range(5)])
    remove_rows(many, prompts=["late 0", "late 4"])
    compact_library(many, 16)
    assert [s[2] for s in shards_of(many)] == [16, 16, 11, 0]
    assert Library.open(many).verify() == []


def test_a_reader_from_before_is_told_to_open_it_again(many: Path) -> None:
    library = Library.open(many)
    compact_library(many, 20)
    with pytest.raises(LibraryError, match="open the library again"):
        library.picture_texts([44])
    with pytest.raises(LibraryError, match="was changed"):
        library.records([44])


def test_an_unfinished_build_comes_first(many: Path) -> None:
    class Stopped(Exception):
        pass

    class Stops(FakeEncoder):
        def encode_texts(self, texts):  # type: ignore[no-untyped-def]
            if self.texts_encoded >= 2:
                raise Stopped
            return super().encode_texts(texts)

    more = [Entry(f"more {i}") for i in range(6)]
    with pytest.raises(Stopped):
        build_library([more], many, Stops(), shard_size=2, batch_size=2, workers=0)
    with pytest.raises(LibraryError, match="unfinished build"):
        compact_library(many)
    build_library([more], many, FakeEncoder(), workers=0)
    compact_library(many)
    assert Library.open(many).verify() == []


def test_bad_arguments_are_named(many: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="shard size 0"):
        compact_library(many, 0)
    with pytest.raises(LibraryError, match="is no library"):
        compact_library(tmp_path / "none")
