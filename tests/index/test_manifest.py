from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unprompt.errors import LibraryError
from unprompt.index.manifest import EncoderInfo, FileInfo, IndexInfo, Manifest, ShardInfo

MANIFEST = Manifest(
    encoder=EncoderInfo("starter", "ab" * 32, 384, {"size": [260, 260]}),
    counts={"pictures": 2, "prompts": 1, "fragments": 0},
    shards=(ShardInfo("pictures", 0, 2),),
    indexes={"image": IndexInfo("image.index", "Flat", 2)},
    files={"image.index": FileInfo(3, "cd" * 32)},
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


def edited(tmp_path: Path, **changes: Any) -> Path:
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tmp_path


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "c:\\x", "a\\b", ""])
def test_it_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(LibraryError, match="outside the library"):
        Manifest.read(edited(tmp_path, files={name: {"bytes": 1, "sha256": "0" * 64}}))
    index = {"image": {"file": name, "factory": "Flat", "rows": 1}}
    with pytest.raises(LibraryError, match="outside the library"):
        Manifest.read(edited(tmp_path, indexes=index))


def test_a_link_cannot_lead_outside_either(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "library"
    root.mkdir()
    (root / "image.index").symlink_to(tmp_path / "outside")
    with pytest.raises(LibraryError, match="outside the library"):
        Manifest.read(edited(root))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": {"name": "starter"}},
        {"encoder": 3},
        {"shards": [{"series": "pictures"}]},
        {"files": {"a": {"bytes": 1}}},
        {"counts": {"pictures": "many"}},
        {"format": None},
    ],
)
def test_a_manifest_of_another_shape_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(LibraryError, match="is not a manifest") as caught:
        Manifest.read(edited(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"format 99.*upgrade unprompt"):
        Manifest.read(edited(tmp_path, format=99))


def test_json_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(LibraryError, match="not valid JSON"):
        Manifest.read(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="there is no library at"):
        Manifest.read(tmp_path / "nowhere")
    with pytest.raises(LibraryError, match="is not a library"):
        Manifest.read(tmp_path)
    for folder, sign in (("begun", "metadata"), ("killed-early", ".lock")):
        (tmp_path / folder / sign).mkdir(parents=True)
        with pytest.raises(LibraryError, match="did not finish; run the same build command again"):
            Manifest.read(tmp_path / folder)
