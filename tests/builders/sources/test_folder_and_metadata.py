"""Pictures with sidecars, and pictures that carry their prompt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fakes import colour_folder, colour_picture
from unprompt.builders.sources import open_source
from unprompt.builders.sources.common import clean_prompt
from unprompt.types import Entry, Skipped


def with_prompt(path: Path, prompt: str) -> Path:
    info = PngInfo()
    info.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Model: m")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "PNG", pnginfo=info)
    return path


def read(folder: Path, format: str = "auto") -> list[Entry | Skipped]:
    source = open_source(str(folder), format)
    items = list(source)
    assert items == list(source), "iterating twice gives the same"
    return items


def prompts(items: list[Entry | Skipped]) -> list[str]:
    return [item.prompt for item in items if isinstance(item, Entry)]


def test_sidecars_in_name_order(tmp_path: Path) -> None:
    pairs = colour_folder(tmp_path, 12)
    assert open_source(str(tmp_path)).format == "folder"
    items = read(tmp_path)
    assert [(item.picture.path, item.prompt) for item in items] == [(str(path), text) for path, text in pairs]


def test_subfolders_letter_case_unicode_and_hidden_files(tmp_path: Path) -> None:
    for name in ("b/über cat.PNG", "a b/x.Jpeg", "c.webp", ".hidden/h.png", "__MACOSX/m.png", "._c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, path.suffix.lower().lstrip(".").replace("jpg", "jpeg"))
        path.with_suffix(".TXT" if name == "c.webp" else ".txt").write_text(f"prompt of {name}")
    assert prompts(read(tmp_path)) == ["prompt of a b/x.Jpeg", "prompt of b/über cat.PNG", "prompt of c.webp"]


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"\xef\xbb\xbfa caf\xc3\xa9\r\n", "a café"),
        (b"a caf\xe9", "a café"),
        ("a café".encode("utf-16"), "a café"),
        (b"a cat,\nblack\n\n  fur  \nphoto.\nsharp", "a cat, black, fur, photo. sharp"),
    ],
)
def test_sidecar_texts(data: bytes, prompt: str, tmp_path: Path) -> None:
    colour_picture(tmp_path / "a.png", "red")
    (tmp_path / "a.txt").write_bytes(data)
    assert prompts(read(tmp_path)) == [prompt]


def test_pictures_without_a_sidecar_fall_back_to_their_own_prompt(tmp_path: Path) -> None:
    colour_folder(tmp_path, 1)
    with_prompt(tmp_path / "a.png", "own prompt")
    with_prompt(tmp_path / "b.png", "own prompt of b")
    (tmp_path / "b.txt").write_text(" \n")
    colour_picture(tmp_path / "c.png", "red")
    colour_picture(tmp_path / "d.png", "red")
    (tmp_path / "d.txt").write_bytes(bytes(50))
    items = read(tmp_path, "folder")
    assert prompts(items) == ["own prompt", "own prompt of b", "a red thing, oil painting"]
    skipped = [(Path(item.uri).name, item.reason) for item in items if isinstance(item, Skipped)]
    assert skipped == [("c.png", "no prompt"), ("d.png", "no prompt")]


def test_pictures_of_one_stem_share_the_sidecar(tmp_path: Path) -> None:
    colour_picture(tmp_path / "a.png", "red")
    colour_picture(tmp_path / "a.bmp", "red")
    (tmp_path / "a.txt").write_text("both")
    assert prompts(read(tmp_path)) == ["both", "both"]


def test_links_are_followed_but_circles_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    colour_folder(root / "sub", 1)
    colour_folder(other, 1)
    (root / "sub" / "up").symlink_to(root)
    (root / "linked").symlink_to(other)
    (root / "nowhere.png").symlink_to(tmp_path / "gone.png")
    items = read(root, "folder")
    assert len(prompts(items)) == 2
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["missing"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_skipped(tmp_path: Path) -> None:
    colour_folder(tmp_path, 2)
    colour_folder(tmp_path / "locked", 1)
    (tmp_path / "picture-0000.txt").chmod(0)
    (tmp_path / "locked").chmod(0)
    try:
        items = read(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["unreadable", "unreadable"]


def test_folders_that_cannot_be_listed_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour_folder(tmp_path, 1)
    colour_folder(tmp_path / "locked", 1)
    listdir = os.listdir

    def refuse(path: Path) -> list[str]:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    skipped, entry = read(tmp_path)
    assert skipped == Skipped(str(tmp_path / "locked"), "unreadable", "Permission denied")
    assert isinstance(entry, Entry)


def test_names_that_are_not_utf8_are_skipped(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"bad\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with_prompt(tmp_path / "good.png", "fine")
    items = read(tmp_path)
    assert prompts(items) == ["fine"]
    (skipped,) = [item for item in items if isinstance(item, Skipped)]
    assert skipped.reason == "unreadable"
    skipped.uri.encode("utf-8")


def test_metadata_is_recognised_and_read(tmp_path: Path) -> None:
    with_prompt(tmp_path / "a.png", "a fox")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1broken")
    colour_picture(tmp_path / "plain.png", "red")
    assert open_source(str(tmp_path)).format == "metadata"
    items = read(tmp_path)
    (entry,) = [item for item in items if isinstance(item, Entry)]
    assert entry.prompt == "a fox"
    assert entry.metadata == {
        "sampler": "Euler", "steps": 20, "cfg": 7.0, "seed": "1", "model": "m", "generator": "AUTOMATIC1111",
    }  # fmt: skip
    skipped = {Path(item.uri).name: item.reason for item in items if isinstance(item, Skipped)}
    assert skipped == {"empty.png": "unreadable", "broken.jpg": "unreadable", "plain.png": "no prompt"}


def test_one_picture_is_a_source(tmp_path: Path) -> None:
    assert prompts(read(with_prompt(tmp_path / "a.png", "a fox"))) == ["a fox"]


def test_clean_prompt_leaves_one_utf8_line() -> None:
    assert clean_prompt("  a\x00 \ud800b \t c\u2028d ") == "a \ufffdb c, d"
    assert clean_prompt(" \n\t") == ""
