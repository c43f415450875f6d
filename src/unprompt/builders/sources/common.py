"""What the readers share: reasons for skipping, listing files, and cleaning prompts and metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from unprompt.pictures.opening import MISSING, PICTURE_SUFFIXES, UNREADABLE
from unprompt.types import METADATA_KEYS, Skipped

NO_PROMPT = "no prompt"
BAD_ROW = "bad row"
BAD_EMBEDDING = "bad embedding"
OUTSIDE = "outside the source"
NOT_TEXT_TO_IMAGE = "not text to image"
FILTER_ASPECT_RATIO = "filter: aspect ratio"
FILTER_BLURRED = "filter: image nsfw"
FILTER_PROMPT_NSFW = "filter: prompt nsfw"
FILTER_CFG = "filter: cfg"
FILTER_STEPS = "filter: steps"

_ALIASES = {
    "cfg_scale": "cfg",
    "guidance_scale": "cfg",
    "guidance": "cfg",
    "sampler_name": "sampler",
    "scheduler": "sampler",
    "step": "steps",
    "num_inference_steps": "steps",
    "licence": "license",
    "negative": "negative_prompt",
    "model_name": "model",
}


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture's, in any letter case."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (a Path for each of 2M names is slow)


def is_hidden(name: str) -> bool:
    """Dot files, and the shadow folder that macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def walk_pictures(root: Path) -> Iterator[Path | Skipped]:
    """Lists pictures below a folder, in name order within each folder, links followed but no folder entered twice.

    Folders that cannot be listed and links that lead nowhere come as `Skipped`.
    """
    seen: set[tuple[int, int]] = set()
    stack: list[Iterator[Path]] = [iter([root])]
    while stack:
        path = next(stack[-1], None)
        if path is None:
            stack.pop()
            continue
        try:
            if not path.is_dir():
                if is_picture(path.name):
                    yield _usable(path)
                continue
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names = sorted(name for name in os.listdir(path) if not is_hidden(name))  # noqa: PTH208
        except OSError as error:
            yield Skipped(str(path), UNREADABLE, error.strerror or str(error))
            continue
        stack.append(map(path.joinpath, names))


def _usable(path: Path) -> Path | Skipped:
    if not path.exists():
        return Skipped(str(path), MISSING, "a link that leads nowhere")
    if valid_text(str(path)) != str(path):  # bytes that are not UTF-8, which neither JSON nor parquet could hold
        return Skipped(valid_text(str(path)), UNREADABLE, "the file's name is not UTF-8; rename it")
    return path


def valid_text(text: str) -> str:
    """The text with lone surrogates replaced, so that it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def decode_text(data: bytes) -> str:
    """Decodes a user's text file: UTF-8, UTF-16 where a BOM says so, else Windows-1252 as the likeliest."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def clean_prompt(text: str) -> str:
    """One line: lines are joined by a space after punctuation and by ", " otherwise; blanks are collapsed."""
    lines = [" ".join(line.replace("\x00", "").split()) for line in valid_text(text).splitlines()]
    joined = ""
    for line in filter(None, lines):
        separator = "" if not joined else " " if joined[-1] in ",.;:!?" else ", "
        joined += separator + line
    return joined


def clean_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Names and types values as `METADATA_KEYS` has them; the rest is kept under its own name, as JSON values.

    Empty values are dropped, and so are those of a known key that its type refuses.
    """
    cleaned: dict[str, Any] = {}
    for key, value in values.items():
        name = valid_text(str(key).strip())
        name = name.lower() if name.lower() in METADATA_KEYS else _ALIASES.get(name.lower(), name)
        if not name or value is None or value == "" or name in cleaned:
            continue
        coerced = _coerce(value, METADATA_KEYS[name]) if name in METADATA_KEYS else _to_json(value)
        if coerced is not None:
            cleaned[name] = coerced
    return cleaned


def _coerce(value: Any, kind: type) -> Any:
    try:
        if kind is str:
            return value.isoformat() if isinstance(value, date | datetime) else valid_text(str(value))
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            return None
        return int(number) if kind is int else number
    except (TypeError, ValueError, OverflowError):
        return None


def _to_json(value: Any) -> Any:
    """The value itself where JSON can hold it exactly, else its text; NaN, which JSON lacks, is dropped."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bytes):
        return None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        return valid_text(str(value))
    return value
