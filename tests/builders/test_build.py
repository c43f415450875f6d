from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, FakePreprocess, colour_picture
from unprompt.builders.build import build_library
from unprompt.errors import LibraryError, SourceError
from unprompt.index.library import Library
from unprompt.types import Entry, Picture, Pixels, Skipped


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def skipped_of(root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (root / "skipped.jsonl").read_text().splitlines()]


def test_worker_processes_give_the_same_library_to_the_byte(tmp_path: Path, entries: list[Entry]) -> None:
    for workers in (0, 2):
        build_library([entries], tmp_path / str(workers), FakeEncoder(), shard_size=16, workers=workers)
    assert files_of(tmp_path / "0") == files_of(tmp_path / "2")


def test_building_again_encodes_nothing(library_path: Path, entries: list[Entry]) -> None:
    before, encoder = files_of(library_path), FakeEncoder()
    report = build_library([entries], library_path, encoder, shard_size=16, workers=0)
    assert (report.pictures, report.known) == (0, 40)
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 0)
    assert files_of(library_path) == before


def test_building_again_encodes_only_what_is_new(library_path: Path, entries: list[Entry], tmp_path: Path) -> None:
    encoder = FakeEncoder()
    new = [
        Entry(entries[0].prompt, Picture(str(colour_picture(tmp_path / "new-0.png", "red", seed=900)))),
        Entry("a new prompt", Picture(str(colour_picture(tmp_path / "new-1.png", "red", seed=901)))),
        Entry("a new prompt", Picture(str(colour_picture(tmp_path / "new-2.png", "red", seed=902)))),
    ]
    report = build_library([[*entries, *new]], library_path, encoder, workers=0)
    assert (report.pictures, report.known) == (3, 40)
    assert (encoder.images_encoded, encoder.texts_encoded) == (3, 1)
    library = Library.open(library_path)
    assert library.verify() == []
    assert (len(library), library.manifest.counts["prompts"]) == (43, 33)


def test_a_grown_library_answers_like_one_built_at_once(tmp_path: Path, entries: list[Entry]) -> None:
    for part in (entries[:10], entries[10:25], entries[25:]):
        build_library([part], tmp_path / "grown", FakeEncoder(), workers=0)
    build_library([entries], tmp_path / "whole", FakeEncoder(), workers=0)
    grown, whole = Library.open(tmp_path / "grown"), Library.open(tmp_path / "whole")
    queries = FakeEncoder().encode_texts(["red thing", "a blue sketch"])
    for index in ("image_index", "prompt_index"):
        for left, right in zip(*(getattr(lib, index).search(queries, 8) for lib in (grown, whole)), strict=True):
            np.testing.assert_array_equal(left, right)
    assert grown.verify() == []


def test_a_prompt_is_encoded_once_however_many_pictures_have_it(tmp_path: Path) -> None:
    entries = [
        Entry("one prompt", Picture(str(colour_picture(tmp_path / f"{i}.png", "red", seed=i)))) for i in range(9)
    ]
    encoder = FakeEncoder()
    build_library([entries], tmp_path / "l", encoder, shard_size=4, workers=0)
    assert (encoder.images_encoded, encoder.texts_encoded) == (9, 1)
    library = Library.open(tmp_path / "l")
    assert library.prompts([0]) == [("one prompt", 9)]


def test_what_cannot_be_used_is_skipped_counted_and_listed(tmp_path: Path, entries: list[Entry]) -> None:
    (tmp_path / "broken.png").write_bytes((tmp_path / "pictures/picture-0000.png").read_bytes()[:60])
    copy = tmp_path / "copy.png"
    shutil.copy(tmp_path / "pictures/picture-0003.png", copy)
    source: list[Entry | Skipped] = [
        *entries[:5],
        Entry("a prompt", Picture(str(tmp_path / "broken.png"))),
        Skipped("somewhere", "no prompt", "it has none"),
        Entry("a prompt", Picture(str(tmp_path / "gone.png"))),
        Entry(entries[3].prompt, Picture(str(copy))),
    ]
    report = build_library([source], tmp_path / "l", FakeEncoder(), workers=0)
    expected = {"unreadable": 1, "no prompt": 1, "missing": 1, "duplicate": 1}
    assert (report.pictures, dict(report.skipped)) == (5, expected)
    lines = skipped_of(tmp_path / "l")
    assert {line["reason"] for line in lines} == set(expected)
    assert {line["uri"] for line in lines} == {
        str(tmp_path / "broken.png"),
        str(tmp_path / "gone.png"),
        str(copy),
        "somewhere",
    }
    assert Library.open(tmp_path / "l").verify() == []


def test_the_same_picture_with_another_prompt_is_another_row(tmp_path: Path, entries: list[Entry]) -> None:
    other = Entry("another prompt", entries[0].picture)
    report = build_library([[entries[0], other]], tmp_path / "l", FakeEncoder(), workers=0)
    assert report.pictures == 2


def test_prompts_alone_feed_the_prompt_index_only(tmp_path: Path) -> None:
    source = [
        Entry("a red thing", metadata={"source": "list"}, count=3),
        Entry("a blue thing", metadata={"source": "list"}),
    ]
    report = build_library([source], tmp_path / "l", FakeEncoder(), workers=0)
    library = Library.open(tmp_path / "l")
    assert (report.pictures, report.prompts, len(library)) == (0, 2, 0)
    assert library.image_index is None
    assert library.prompts([0, 1]) == [("a red thing", 3), ("a blue thing", 1)]
    again = build_library([source], tmp_path / "l", FakeEncoder(), workers=0)
    assert (again.prompts, again.known) == (0, 2)
    assert Library.open(tmp_path / "l").prompts([0]) == [("a red thing", 3)]


def test_pictures_and_prompts_alone_share_counts_and_embeddings(library_path: Path, entries: list[Entry]) -> None:
    encoder = FakeEncoder()
    extra = [
        Entry(entries[0].prompt, metadata={"source": "list"}, count=5),
        Entry("unseen", metadata={"source": "list"}),
    ]
    build_library([extra], library_path, encoder, workers=0)
    assert encoder.texts_encoded == 1
    library = Library.open(library_path)
    pictures = sum(entry.prompt == entries[0].prompt for entry in entries)
    assert library.prompts([0]) == [(entries[0].prompt, pictures + 5)]
    assert library.verify() == []


def test_nothing_to_build_from_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture or prompt to build"):
        build_library([[]], tmp_path / "l", FakeEncoder(), workers=0)
    with pytest.raises(SourceError, match="2 no prompt"):
        build_library(
            [[Skipped("a", "no prompt"), Skipped("b", "no prompt")]], tmp_path / "l", FakeEncoder(), workers=0
        )


def test_another_encoder_is_refused(library_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(LibraryError, match=r"built with encoder fake .*not fake-2"):
        build_library([entries], library_path, FakeEncoder(salt="-2"), workers=0)
    assert Library.open(library_path).verify() == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, entries: list[Entry]) -> None:
    before = files_of(tmp_path / "pictures")
    with pytest.raises(LibraryError, match="is not empty and not a library"):
        build_library([entries], tmp_path / "pictures", FakeEncoder(), workers=0)
    assert files_of(tmp_path / "pictures") == before


def test_an_index_asked_for_is_kept_when_adding(tmp_path: Path, entries: list[Entry]) -> None:
    build_library([entries[:30]], tmp_path / "l", FakeEncoder(), index="HNSW8", workers=0)
    build_library([entries[30:]], tmp_path / "l", FakeEncoder(), workers=0)
    library = Library.open(tmp_path / "l")
    assert {info.factory for info in library.manifest.indexes.values()} == {"HNSW8"}
    assert library.verify() == []
    report = build_library([entries], tmp_path / "l", FakeEncoder(), index="auto", workers=0)
    assert {index.factory for index in report.indexes} == {"Flat"}
    assert {index.recall for index in report.indexes} == {1.0}


class FailingEncoder(FakeEncoder):
    """Fails at the n-th picture."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def encode_images(self, images: Any) -> Any:
        if self.images_encoded >= self._after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().encode_images(images)


@pytest.mark.parametrize("after", [0, 8, 16, 24, 32])
def test_a_build_that_fails_resumes_at_the_first_missing_shard(
    tmp_path: Path, entries: list[Entry], after: int
) -> None:
    with pytest.raises(OSError, match="No space"):
        build_library([entries], tmp_path / "l", FailingEncoder(after), shard_size=16, batch_size=8, workers=0)
    with pytest.raises(LibraryError):
        Library.open(tmp_path / "l")
    encoder = FakeEncoder()
    report = build_library([entries], tmp_path / "l", encoder, shard_size=16, batch_size=8, workers=0)
    whole_shards = after // 16 * 16
    assert encoder.images_encoded == 40 - whole_shards
    assert report.resumed == report.known == whole_shards
    build_library([entries], tmp_path / "once", FakeEncoder(), shard_size=16, batch_size=8, workers=0)
    assert files_of(tmp_path / "l") == files_of(tmp_path / "once")


def test_a_full_disk_while_committing_leaves_the_library_as_it_was(
    library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unprompt.index.vector_index import VectorIndex

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    new = [Entry("new", Picture(str(colour_picture(tmp_path / "new.png", "red", seed=77))))]
    with monkeypatch.context() as patch:
        patch.setattr(VectorIndex, "write", full)
        with pytest.raises(OSError, match="No space"):
            build_library([new], library_path, FakeEncoder(), workers=0)
    library = Library.open(library_path)
    assert (library.verify(), len(library)) == ([], 40)
    encoder = FakeEncoder()
    report = build_library([new], library_path, encoder, workers=0)
    assert (report.resumed, encoder.images_encoded) == (1, 0)
    assert (Library.open(library_path).verify(), len(Library.open(library_path))) == ([], 41)


class DeadlyPreprocess(FakePreprocess):
    """Kills its process at a picture of one pixel, as the system does when memory runs out."""

    def __call__(self, image: Image.Image) -> Pixels:
        if image.size == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_decoding_process_that_dies_is_one_line_and_the_build_resumes(tmp_path: Path, entries: list[Entry]) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "deadly.png")
    source = [*entries, Entry("deadly", Picture(str(tmp_path / "deadly.png")))]
    encoder = FakeEncoder()
    encoder.preprocess = DeadlyPreprocess()
    with pytest.raises(SourceError, match="a decoding process died; run the build again"):
        build_library([source], tmp_path / "l", encoder, shard_size=4, workers=1)
    report = build_library([source], tmp_path / "l", FakeEncoder(), shard_size=4, workers=1)
    assert report.pictures + report.known == 41
    assert Library.open(tmp_path / "l").verify() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_breaks_half_way_is_its_own_error(tmp_path: Path, entries: list[Entry], workers: int) -> None:
    def breaking() -> Iterator[Entry]:
        yield from entries[:20]
        raise SourceError("the archive ends here")

    with pytest.raises(SourceError, match="the archive ends here"):
        build_library([breaking()], tmp_path / "l", FakeEncoder(), shard_size=8, workers=workers)
    report = build_library([entries], tmp_path / "l", FakeEncoder(), shard_size=8, workers=workers)
    assert report.resumed in (8, 16)
    assert Library.open(tmp_path / "l").verify() == []
