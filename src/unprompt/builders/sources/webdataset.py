"""Format "webdataset": tar shards in which a picture and its texts have one key (``000017.jpg``, ``000017.txt``)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import TarInfo
from typing import Any, BinaryIO

from unprompt.builders.sources.common import (
    BAD_ROW,
    NO_PROMPT,
    clean_metadata,
    clean_prompt,
    decode_text,
    is_hidden,
    is_picture,
)
from unprompt.builders.sources.metadata import recorded_entry
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import PROMPT_COLUMNS, find_column
from unprompt.errors import SourceError
from unprompt.pictures.archives import COMPRESSED_TARS, is_tar, read_tar
from unprompt.pictures.opening import MISSING, UNREADABLE
from unprompt.types import Entry, Picture, Skipped

MAX_TEXT = 2**20
"""Bytes; a longer text is not a prompt, and a longer JSON is not read."""

_TEXTS = ("txt", "text", "caption")


class WebDatasetSource:
    """A .tar shard or a folder of them, in name order, each in the order of its members.

    Members that follow each other and share all up to the first dot of their name are one sample. Its prompt is the
    .txt, else a field of the .json (first of all the field that `SourceOptions.prompt_column` names), else what the
    picture itself carries. The other fields of the .json are metadata. Pictures are addressed as ``shard.tar!member``.
    """

    format = "webdataset"

    def __init__(self, path: str, options: SourceOptions) -> None:
        self.shards = find_shards(Path(path))
        self._column = options.prompt_column
        if not self.shards:
            packed = [Path(path)] if Path(path).is_file() else sorted(Path(path).iterdir())
            if any(file.name.lower().endswith(COMPRESSED_TARS) for file in packed):
                raise SourceError(
                    f"{path}: compressed archives have to be read from their start; unpack them to .tar first"
                )
            raise SourceError(f"{path}: no .tar shards; --format webdataset takes a .tar file or a folder of them")

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for shard in self.shards:
            try:
                with shard.open("rb") as file:
                    for sample in _samples(shard):
                        if isinstance(sample, Skipped):
                            yield sample
                        else:
                            yield from self._read(shard, file, sample)
            except OSError as error:
                yield Skipped(str(shard), UNREADABLE, error.strerror or str(error))

    def _read(self, shard: Path, file: BinaryIO, sample: list[TarInfo]) -> Iterator[Entry | Skipped]:
        pictures = [Picture(str(shard), member.name) for member in sample if is_picture(member.name)]
        texts = {_suffix(member): _text(file, member) for member in sample if _suffix(member) in (*_TEXTS, "json")}
        if not pictures:
            if texts:
                yield Skipped(f"{shard}!{sample[0].name}", MISSING, "no picture of this key")
            return
        fields = _fields(texts.get("json", ""))
        column = find_column(list(fields or ()), self._column, PROMPT_COLUMNS)
        written = fields[column] if fields and column else ""
        plain = next((texts[name] for name in _TEXTS if texts.get(name, "").strip()), "")
        prompt = written if self._column or not plain else plain
        prompt = clean_prompt(prompt) if isinstance(prompt, str) else ""
        metadata = clean_metadata({key: value for key, value in (fields or {}).items() if key != column})
        for picture in pictures:
            if prompt:
                yield Entry(prompt, picture, metadata)
            elif fields is None:
                yield Skipped(picture.uri, BAD_ROW, "its .json is not a JSON object, and there is no .txt")
            elif self._column:
                yield Skipped(picture.uri, NO_PROMPT, f"no text in field {self._column!r} of its .json")
            else:
                yield recorded_entry(picture)


def find_shards(path: Path) -> list[Path]:
    """The .tar file itself, or those of a folder."""
    if path.is_file():
        return [path] if is_tar(path) else []
    return sorted(child for child in path.iterdir() if is_tar(child) and not is_hidden(child.name) and child.is_file())


def _samples(shard: Path) -> Iterator[list[TarInfo] | Skipped]:
    """Members by key; what comes before a damaged place is given, and then the damage."""
    sample: list[TarInfo] = []
    problem = None
    try:
        for member in read_tar(shard):
            if is_hidden(Path(member.name).name):
                continue
            if sample and _key(member) != _key(sample[0]):
                yield sample
                sample = []
            sample.append(member)
    except tarfile.ReadError as error:
        problem = Skipped(str(shard), UNREADABLE, " ".join(str(error).split()))
    if sample:
        yield sample
    if problem:
        yield problem


def _key(member: TarInfo) -> str:
    folder, slash, name = member.name.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _suffix(member: TarInfo) -> str:
    return member.name.rpartition("/")[2].partition(".")[2].lower()


def _text(file: BinaryIO, member: TarInfo) -> str:
    if member.size > MAX_TEXT:
        return ""
    file.seek(member.offset_data)
    text = decode_text(file.read(member.size))
    return "" if "\x00" in text else text


def _fields(text: str) -> dict[str, Any] | None:
    """The JSON object, empty for no text at all; None for text that is none."""
    if not text.strip():
        return {}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
