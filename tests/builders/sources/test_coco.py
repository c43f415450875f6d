"""COCO's captions beside its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import FakeEncoder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.sources import open_source
from unprompt.errors import SourceError
from unprompt.types import Entry, Skipped


def coco(root: Path, part: str = "train2017") -> Path:
    for i, colour in enumerate(("red", "blue")):
        colour_picture(root / part / f"{i:012d}.png", colour)
    captions = [(0, "a red thing"), (1, "a blue\n thing"), (0, "something red"), (2, "gone"), (1, "  "), (9, "unknown")]
    facts = {
        "info": {},
        "images": [{"id": i, "file_name": f"{i:012d}.png"} for i in range(3)],
        "annotations": [{"image_id": image, "caption": text, "id": i} for i, (image, text) in enumerate(captions)],
    }
    path = root / "annotations" / f"captions_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts))
    return path


def test_captions_of_a_picture_come_together_and_it_is_encoded_once(tmp_path: Path) -> None:
    path = coco(tmp_path)
    for spec in (tmp_path, tmp_path / "annotations", path):
        source = open_source(str(spec))
        assert source.format == "coco"
        found = list(source)
        assert [item.prompt for item in found if isinstance(item, Entry)] == [
            "a red thing",
            "something red",
            "a blue thing",
        ]
        assert [item.reason for item in found if isinstance(item, Skipped)] == ["no prompt", "missing", "bad row"]
    encoder = FakeEncoder()
    report = build_library([open_source(str(tmp_path))], tmp_path / "l", encoder, workers=0)
    assert (report.pictures, encoder.images_encoded) == (3, 2)


def test_two_parts_are_read_in_name_order(tmp_path: Path) -> None:
    coco(tmp_path)
    coco(tmp_path, "val2017")
    pictures = [item.picture.path for item in open_source(str(tmp_path)) if isinstance(item, Entry) and item.picture]
    assert ["train2017" in path for path in pictures] == [True, True, True, False, False, False]


def test_what_holds_no_captions_says_so(tmp_path: Path) -> None:
    path = coco(tmp_path)
    instances = path.with_name("instances_train2017.json")
    instances.write_text(
        json.dumps({"images": [{"id": 0, "file_name": "x"}], "annotations": [{"image_id": 0, "bbox": []}]})
    )
    with pytest.raises(SourceError, match=r"instances_train2017\.json is no COCO captions file .*name captions_"):
        open_source(str(instances))
    with pytest.raises(SourceError, match="no COCO captions; --format coco takes"):
        open_source(str(tmp_path / "train2017"), "coco")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SourceError, match="not recognised"):
        open_source(str(tmp_path / "other.json"))
