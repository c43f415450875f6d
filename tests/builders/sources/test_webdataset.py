"""Tar shards: samples by key, texts and metadata, and damage that costs only what it hit."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fakes import PALETTE, FakeEncoder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.sources import SourceOptions, open_source
from unprompt.errors import SourceError
from unprompt.index.library import Library
from unprompt.pictures.archives import read_tar
from unprompt.pictures.opening import PictureError, read_bytes, read_size
from unprompt.types import Entry, Picture, Skipped


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def png(tmp_path: Path, colour: str, seed: int = 0) -> bytes:
    return colour_picture(tmp_path / "made" / f"{colour}-{seed}.png", colour, seed).read_bytes()


def shard(tmp_path: Path, name: str = "00000.tar", count: int = 8) -> Path:
    members: list[tuple[str, bytes]] = []
    for i, colour in enumerate(list(PALETTE)[:count]):
        members.append((f"./{i:05d}.png", png(tmp_path, colour)))
        members.append((f"./{i:05d}.txt", f"a {colour} thing\n".encode()))
        members.append((f"./{i:05d}.json", json.dumps({"caption": "other", "seed": i, "key": f"{i:05d}"}).encode()))
    return write_tar(tmp_path / name, members)


def test_samples_have_their_text_and_metadata(tmp_path: Path) -> None:
    path = shard(tmp_path)
    for spec in (tmp_path, path):
        source = open_source(str(spec))
        assert source.format == "webdataset"
        items = list(source)
        assert items == list(source)
        entries = [item for item in items if isinstance(item, Entry)]
        assert [entry.prompt for entry in entries] == [f"a {colour} thing" for colour in PALETTE]
        assert entries[3].picture == Picture(str(path), "./00003.png")
        assert entries[3].metadata == {"seed": "3", "key": "00003"}


@pytest.mark.parametrize("workers", [0, 2])
def test_members_are_pictures_in_an_archive(tmp_path: Path, workers: int) -> None:
    path = shard(tmp_path)
    report = build_library([open_source(str(path))], tmp_path / "l", FakeEncoder(), workers=workers)
    assert (report.pictures, dict(report.skipped)) == (8, {})
    library = Library.open(tmp_path / "l")
    picture = Picture(str(path), "./00002.png")
    assert library.records([2])[0].image == picture.uri
    assert read_bytes(picture) == png(tmp_path, "blue")
    assert read_size(picture) == (24, 24)
    with pytest.raises(PictureError, match="no such member in the archive"):
        read_bytes(Picture(str(path), "gone.png"))


def test_where_prompts_come_from(tmp_path: Path) -> None:
    own = PngInfo()
    own.add_text("parameters", "a prompt of its own\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x8")
    recorded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(recorded, "PNG", pnginfo=own)
    picture = png(tmp_path, "red")
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("a/0.jpg", picture), ("a/0.json", b'{"caption": "from json", "long": "longer", "cfg_scale": 7.5}'),
            ("b/0.png", recorded.getvalue()),
            ("b/1.png", picture),
            ("b/2.json", b"[1, 2]"), ("b/2.png", picture),
            ("b/3.txt", b"alone"),
            ("b/4.json", b"{"), ("b/4.png", picture), ("b/4.txt", b"text wins"),
            ("b/5.left.png", picture), ("b/5.right.png", png(tmp_path, "blue")), ("b/5.caption", b"two sides"),
            ("b/.hidden.png", picture), ("b/6.cls", b"3"),
        ],
    )  # fmt: skip
    found = list(open_source(str(path)))
    assert [item.prompt if isinstance(item, Entry) else item.reason for item in found] == [
        "from json", "a prompt of its own", "no prompt", "bad row", "missing", "text wins", "two sides", "two sides",
    ]  # fmt: skip
    assert isinstance(found[0], Entry)
    assert found[0].metadata == {"long": "longer", "cfg": 7.5}
    asked = list(open_source(str(path), options=SourceOptions(prompt_column="long")))
    assert [item.prompt for item in asked if isinstance(item, Entry)] == ["longer"]


def test_a_corrupt_picture_is_skipped(tmp_path: Path) -> None:
    members = [
        ("0.png", b"no picture"),
        ("0.txt", b"a"),
        ("1.png", b""),
        ("1.txt", b"b"),
        ("2.png", png(tmp_path, "red")),
    ]
    path = write_tar(tmp_path / "a.tar", [*members, ("2.txt", b"c")])
    report = build_library([open_source(str(path))], tmp_path / "l", FakeEncoder(), workers=0)
    assert (report.pictures, dict(report.skipped)) == (1, {"unreadable": 2})


def test_a_shard_that_was_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    path = shard(tmp_path)
    last = [member for member in read_tar(path) if member.name.endswith(".png")][-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 20])
    shard(tmp_path, "00001.tar", 3)
    report = build_library([open_source(str(tmp_path))], tmp_path / "l", FakeEncoder(), workers=0)
    assert (report.pictures, dict(report.skipped)) == (7, {"unreadable": 2, "duplicate": 3})
    lines = [json.loads(line) for line in (tmp_path / "l/skipped.jsonl").read_text().splitlines()]
    assert [line["uri"] for line in lines if line["reason"] == "unreadable"] == [f"{path}!{last.name}", str(path)]


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path)
    header = next(member for member in read_tar(path) if member.name.endswith("00004.png")).offset
    data = bytearray(path.read_bytes())
    data[header : header + 512] = b"\xff" * 512
    path.write_bytes(data)
    found = list(open_source(str(path)))
    assert [item.prompt for item in found if isinstance(item, Entry)] == [f"a {c} thing" for c in list(PALETTE)[:4]]
    [skipped] = [item for item in found if isinstance(item, Skipped)]
    assert (skipped.uri, skipped.reason) == (str(path), "unreadable")
    assert f"damaged at byte {header}" in skipped.detail


def test_what_is_no_tar_is_skipped_whole(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive at all" * 100)
    shard(tmp_path, "b.tar", 2)
    found = list(open_source(str(tmp_path)))
    assert isinstance(found[0], Skipped)
    assert found[0].uri == str(tmp_path / "a.tar")
    assert len([item for item in found if isinstance(item, Entry)]) == 2


def test_compressed_shards_say_what_to_do(tmp_path: Path) -> None:
    path = shard(tmp_path)
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write(path.read_bytes())
    path.unlink()
    for spec, format in ((tmp_path / "x.tar.gz", "auto"), (tmp_path, "webdataset")):
        with pytest.raises(SourceError, match="unpack them to"):
            open_source(str(spec), format)


def test_a_name_that_points_outside_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("../../x.png", png(tmp_path, "red")), ("../../x.txt", b"a")])
    report = build_library([open_source(str(path)), [Entry("b")]], tmp_path / "l", FakeEncoder(), workers=0)
    assert (report.pictures, dict(report.skipped)) == (0, {"unreadable": 1})
