"""COCO's captions: the JSON of ``annotations/captions_train2017.json`` beside a folder of its pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unprompt.errors import SourceError
from unprompt.pictures.opening import MISSING
from unprompt.types import Entry, Picture, Skipped


class CocoSource:
    """One entry a caption, in the file's order: a picture has about five.

    Args:
        annotations: the JSON file.
        images: the folder of its pictures; None looks beside the file and where COCO's own archives put them
            (``train2017`` beside ``annotations``).
    """

    format = "coco"

    def __init__(self, annotations: Path, images: Path | None = None) -> None:
        """Reads the file.

        Raises:
            SourceError: it is no COCO captions file, or there is no such folder.
        """
        try:
            facts = json.loads(annotations.read_text(encoding="utf-8"))
            self._names = {int(row["id"]): str(row["file_name"]) for row in facts["images"]}
            self._captions = [(int(row["image_id"]), str(row["caption"])) for row in facts["annotations"]]
        except OSError as error:
            raise SourceError(f"cannot read {annotations} ({error.strerror}): check the path") from None
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{annotations} is no COCO captions file ({error!r}): name captions_*.json") from None
        self.annotations = annotations
        self.images = images or _find_images(annotations, next(iter(self._names.values()), ""))
        if not self.images.is_dir():
            raise SourceError(f"{self.images} is no folder: name the folder of COCO's pictures")

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[Entry | Skipped]:
        return self._entries(self._captions)

    def by_picture(self) -> Iterator[Entry | Skipped]:
        """The same entries, those of one picture together, pictures in the order of their first captions."""
        order: dict[int, int] = {}
        for number, _ in self._captions:
            order.setdefault(number, len(order))
        return self._entries(sorted(self._captions, key=lambda caption: order[caption[0]]))

    def _entries(self, captions: list[tuple[int, str]]) -> Iterator[Entry | Skipped]:
        metadata: dict[str, Any] = {"source": "COCO"}
        for number, caption in captions:
            name, prompt = self._names.get(number), " ".join(caption.split())
            if name is None or "/" in name or "\\" in name or not prompt:
                reason = "no prompt" if name else "bad row"
                yield Skipped(f"{self.annotations}:{number}", reason, f"picture {number}, caption {prompt[:40]!r}")
                continue
            path = self.images / name
            if path.is_file():
                yield Entry(prompt, Picture(str(path)), metadata)
            else:
                yield Skipped(str(path), MISSING, f"named in {self.annotations}")


def _find_images(annotations: Path, name: str) -> Path:
    """Where the pictures of ``captions_train2017.json`` usually are."""
    beside = annotations.parent
    part = annotations.stem.removeprefix("captions_")
    for folder in (beside, beside / part, beside / "images", beside.parent / part, beside.parent / "images"):
        if name and (folder / name).is_file():
            return folder
    raise SourceError(f"no picture {name!r} near {annotations}: name the folder of COCO's pictures")


def holds_captions(path: Path) -> bool:
    """Whether a .json file is likely one of COCO's: by its name, or by how it begins."""
    if path.stem.startswith(("captions_", "instances_")):
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(2**16)
    except OSError:
        return False
    return start.lstrip()[:1] == b"{" and (b'"annotations"' in start or b'"images"' in start)
