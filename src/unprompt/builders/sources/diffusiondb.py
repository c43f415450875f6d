"""Format "diffusiondb": parts of DiffusionDB 2M or Large, as folders or zip archives (Wang et al., 2023).

A part holds 1,000 pictures and ``part-NNNNNN.json``, which maps a picture's name to its prompt (p), seed (se),
guidance scale (c), steps (st) and sampler (sa). ``metadata.parquet`` (2M) or ``metadata-large.parquet`` (Large), beside
the parts or above them, adds sizes and safety scores.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unprompt.builders.sources.common import (
    BAD_ROW,
    FILTER_ASPECT_RATIO,
    FILTER_BLURRED,
    FILTER_CFG,
    FILTER_PROMPT_NSFW,
    FILTER_STEPS,
    NO_PROMPT,
    clean_metadata,
    clean_prompt,
    is_hidden,
    is_picture,
)
from unprompt.builders.sources.options import DiffusionFilters
from unprompt.errors import SourceError
from unprompt.pictures.opening import MISSING, UNREADABLE, PictureError, read_bytes, read_size
from unprompt.types import Entry, Picture, Skipped

_PART = re.compile(r"part-(\d{6})(?:\.zip)?", re.IGNORECASE)
_LEVELS = 2
"""How far below the given folder parts are looked for: ``images/part-...``, ``diffusiondb-large-part-1/part-...``."""

_BLURRED = 2.0
_KEYS = {"se": "seed", "c": "cfg", "st": "steps", "sa": "sampler"}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the data set: a folder or a zip archive."""

    number: int
    path: Path


class DiffusionDBSource:
    """Parts in the order of their numbers, each in the order of its JSON file."""

    format = "diffusiondb"

    def __init__(self, path: str, filters: DiffusionFilters) -> None:
        self.root = Path(path)
        self.filters = filters
        self.parts = find_parts(self.root)
        if not self.parts:
            raise SourceError(f"{path}: no DiffusionDB parts; looked for part-NNNNNN folders and part-NNNNNN.zip files")
        self.table = _find_table(self.root)

    def __iter__(self) -> Iterator[Entry | Skipped]:
        from unprompt.builders.sources.diffusiondb_table import MetadataTable

        table = MetadataTable(self.table) if self.table is not None else None
        for part in self.parts:
            try:
                pictures, rows = _read_part(part)
            except (PictureError, ValueError, OSError, zipfile.BadZipFile) as error:
                yield Skipped(str(part.path), UNREADABLE, " ".join(str(error).split()))
                continue
            known = table.part(part.number) if table is not None else {}
            for name, row in rows.items():
                yield self._entry(pictures.get(name), f"{part.path}/{name}", row, known.get(name, {}))
            for name, picture in pictures.items():
                if name not in rows:
                    yield Skipped(picture.uri, NO_PROMPT, f"not in part-{part.number:06d}.json")

    def _entry(self, picture: Picture | None, uri: str, row: Any, known: Mapping[str, Any]) -> Entry | Skipped:
        if picture is None:
            return Skipped(uri, MISSING, "named in the part's JSON")
        if not isinstance(row, dict) or not isinstance(row.get("p"), str):
            return Skipped(picture.uri, BAD_ROW, "the part's JSON has no prompt (key p) for it")
        prompt = clean_prompt(row["p"])
        if not prompt:
            return Skipped(picture.uri, NO_PROMPT, "the prompt is empty")
        values = {**{name: row.get(key) for key, name in _KEYS.items()}, **known}
        metadata = clean_metadata({"source": "DiffusionDB", "license": "CC0-1.0", **values})
        return self._filter(picture, metadata) or Entry(prompt, picture, metadata)

    def _filter(self, picture: Picture, metadata: dict[str, Any]) -> Skipped | None:
        """Cheap filters first: only the last one may have to open the picture. What is unknown passes."""
        filters, uri = self.filters, picture.uri
        if filters.min_cfg is not None and metadata.get("cfg", filters.min_cfg) < filters.min_cfg:
            return Skipped(uri, FILTER_CFG, f"{metadata['cfg']:g} is under {filters.min_cfg:g}")
        if filters.min_steps is not None and metadata.get("steps", filters.min_steps) < filters.min_steps:
            return Skipped(uri, FILTER_STEPS, f"{metadata['steps']} is under {filters.min_steps}")
        if filters.skip_blurred and metadata.get("image_nsfw") == _BLURRED:
            return Skipped(uri, FILTER_BLURRED, "blurred by Stable Diffusion's own safety filter")
        if filters.prompt_nsfw is not None and metadata.get("prompt_nsfw", 0.0) > filters.prompt_nsfw:
            return Skipped(uri, FILTER_PROMPT_NSFW, f"{metadata['prompt_nsfw']:g} is over {filters.prompt_nsfw:g}")
        return None if filters.aspect_ratio is None else _filter_ratio(picture, metadata, filters.aspect_ratio)


def _filter_ratio(picture: Picture, metadata: dict[str, Any], wanted: float) -> Skipped | None:
    if not (metadata.get("width") and metadata.get("height")):
        try:
            metadata["width"], metadata["height"] = read_size(picture)
        except PictureError as error:
            return Skipped(picture.uri, error.reason, error.detail)
    ratio = metadata["width"] / metadata["height"]
    if abs(ratio / wanted - 1.0) <= 0.01:
        return None
    return Skipped(picture.uri, FILTER_ASPECT_RATIO, f"{metadata['width']} x {metadata['height']}, wanted {wanted:g}")


def part_number(name: str) -> int | None:
    """The number in "part-000001" or "part-000001.zip", None for any other name."""
    match = _PART.fullmatch(name)
    return int(match.group(1)) if match else None


def find_parts(root: Path) -> list[Part]:
    """Parts at or below `root`, by number; of a folder and an archive of one number the folder is taken."""
    found: dict[int, Part] = {}
    level = [root]
    for _ in range(_LEVELS + 1):
        below: list[Path] = []
        for path in level:
            number = part_number(path.name)
            if number is None:
                below += _children(path)
            elif path.is_dir() or (number not in found and path.suffix.lower() == ".zip" and path.is_file()):
                found[number] = Part(number, path)
        level = below
    return [found[number] for number in sorted(found)]


def _children(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as children:
            kept = [c.name for c in children if not is_hidden(c.name) and (part_number(c.name) or c.is_dir())]
    except OSError:  # a file, or a folder that may not be listed: no parts there
        return []
    return [path / name for name in sorted(kept)]


def _find_table(root: Path) -> Path | None:
    for folder in (root, *list(root.parents)[: _LEVELS + 1]):
        for name in ("metadata.parquet", "metadata-large.parquet"):
            if (folder / name).is_file():
                return folder / name
    return None


def _read_part(part: Part) -> tuple[dict[str, Picture], dict[str, Any]]:
    """The part's pictures by name, in name order, and its JSON rows."""
    names: dict[str, Picture] = {}
    if part.path.is_dir():
        for name in sorted(child.name for child in part.path.iterdir() if not is_hidden(child.name)):
            names[name] = Picture(str(part.path / name))
    else:
        with zipfile.ZipFile(part.path) as archive:
            for member in sorted(archive.namelist()):
                pieces = member.split("/")
                if pieces[-1] and not any(is_hidden(piece) for piece in pieces):
                    names.setdefault(pieces[-1], Picture(str(part.path), member))
    wanted = f"part-{part.number:06d}.json"
    if wanted not in names:
        raise ValueError(f"no {wanted} in it")
    rows = json.loads(read_bytes(names[wanted]))
    if not isinstance(rows, dict):
        raise ValueError(f"{wanted} is not a JSON object")
    return {name: picture for name, picture in names.items() if is_picture(name)}, rows
