"""The manifest: one JSON file that says what a library is and what each of its files must be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unprompt.errors import LibraryError
from unprompt.index.files import sha256_file, write_durably

MANIFEST = "manifest.json"
LOCK = ".lock"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made the embeddings. Two libraries are comparable when `fingerprint` and `dim` agree."""

    name: str
    fingerprint: str
    dim: int
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardInfo:
    """One shard of a series ("pictures" or "prompts").

    Attributes:
        series: its name.
        number: its number in the series.
        rows: how many it holds.
        imported: its embeddings were made elsewhere and taken as they are: that the library's encoder made them was
            said by whoever built it, and is not proved by the fingerprint.
    """

    series: str
    number: int
    rows: int
    imported: bool = False


@dataclass(frozen=True)
class IndexInfo:
    """One FAISS index.

    Attributes:
        file: its name.
        factory: its FAISS factory string.
        rows: how many vectors it holds.
        parameters: its search parameters, such as "nprobe=64"; "" when it has none.
        requested: what was asked for, "auto" or a factory string; later changes to the library keep to it.
        goal: the limits that "auto" chose it under, as `IndexGoal.to_dict` gives them; later changes keep to them.
        chosen_rows: how many rows there were when it was chosen under limits; 0 without any.
        on_disk: its lists were built in parts, for they do not fit the memory allowed.
        recall: against exact search, "10" and "100" -> [0, 1], while it has the rows that it was measured with.
    """

    file: str
    factory: str
    rows: int
    parameters: str = ""
    requested: str = "auto"
    goal: Mapping[str, Any] = field(default_factory=dict)
    chosen_rows: int = 0
    on_disk: bool = False
    recall: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileInfo:
    """What a file must be: its size in bytes and its sha256."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileInfo:
        return cls(path.stat().st_size, sha256_file(path))


@dataclass(frozen=True)
class Manifest:
    """All facts about a library.

    Attributes:
        encoder: what made the embeddings.
        dtype: of the stored embeddings, "float16" or "float32".
        counts: rows of "pictures", distinct "prompts", vocabulary "fragments".
        shards: pictures first, then prompts, each by number.
        indexes: "image" and "text", those that exist.
        files: every other file of the library, by its path with forward slashes.
    """

    encoder: EncoderInfo
    dtype: str = "float16"
    counts: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[ShardInfo, ...] = ()
    indexes: Mapping[str, IndexInfo] = field(default_factory=dict)
    files: Mapping[str, FileInfo] = field(default_factory=dict)
    metric: str = "cosine"
    format: int = FORMAT_VERSION

    def write(self, root: Path) -> None:
        """Writes the manifest durably; it holds no time and no machine, so equal libraries have equal manifests."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_durably(root / MANIFEST, lambda file: file.write(text.encode()))

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Reads and checks `root`'s manifest.

        Raises:
            LibraryError: there is none, it is not valid, is of a newer format, or names a file outside the folder.
        """
        path = root / MANIFEST
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise LibraryError(_missing(root)) from None
        except (ValueError, RecursionError) as error:
            raise LibraryError(f"{path} is not valid JSON ({error}); restore it or build the library again") from None
        try:
            version = int(data["format"])
            if version > FORMAT_VERSION:
                raise LibraryError(
                    f"{path} has format {version}, this unprompt reads up to {FORMAT_VERSION}; upgrade unprompt"
                )
            manifest = cls._parse(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LibraryError(
                f"{path} is not a manifest: {type(error).__name__} {error}; build the library again"
            ) from None
        for name in manifest.files:
            check_inside(root, name)
        for info in manifest.indexes.values():
            check_inside(root, info.file)
        return manifest

    @classmethod
    def _parse(cls, data: Mapping[str, Any]) -> Manifest:
        return cls(
            encoder=EncoderInfo(**data["encoder"]),
            dtype=str(data["dtype"]),
            counts={str(name): int(count) for name, count in data["counts"].items()},
            shards=tuple(ShardInfo(**shard) for shard in data["shards"]),
            indexes={str(name): IndexInfo(**info) for name, info in data["indexes"].items()},
            files={str(name): FileInfo(**info) for name, info in data["files"].items()},
            metric=str(data["metric"]),
            format=int(data["format"]),
        )


def check_inside(root: Path, name: str) -> None:
    """Refuses a name that leads out of `root`, by its own words or through a symbolic link.

    Raises:
        LibraryError: it does.
    """
    pure = PurePosixPath(name)
    plain = not pure.is_absolute() and ".." not in pure.parts and "\\" not in name and ":" not in name and name
    if not plain or not (root / pure).resolve().is_relative_to(root.resolve()):
        raise LibraryError(f"{root / MANIFEST} names {name!r}, which is outside the library; do not trust this library")


def _missing(root: Path) -> str:
    if not root.exists():
        return f"there is no library at {root}; make one with: unprompt build SOURCE --library {root}"
    if any((root / name).exists() for name in ("metadata", "prompts", LOCK)):
        return f"{root} has no {MANIFEST}: its build did not finish; run the same build command again to resume"
    return f"{root} is not a library: it has no {MANIFEST}"
