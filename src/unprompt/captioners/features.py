"""Features of a frozen backbone, computed once a picture and kept in a cache folder.

A cache is a folder of numbered shards: ``features-000000.npy``, a (rows, tokens, width) float16 array that is mapped
from disk, beside ``features-000000.json``, which names each row by the picture's content. A shard is written whole or
not at all, so a run that dies loses at most the shard in hand, and the next one computes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from unprompt.captioners.data.augment import Augmentation
from unprompt.encoders.parallel import map_side_by_side
from unprompt.errors import EncoderError
from unprompt.index.files import write_durably
from unprompt.pictures.opening import PictureError, open_picture, read_bytes
from unprompt.types import Picture, Pixels, Preprocess, Skipped

logger = logging.getLogger(__name__)

SHARD_ROWS = 512
_STRIDE = 1 << 20
"""A row's number is its shard's times this, plus its place in the shard, however many rows shards have."""
_UNREADABLE = -1

Features = NDArray[np.float16]
"""(N, tokens, width) float16."""


class Backbone(Protocol):
    """What turns preprocessed pictures into arrays, such as a `GridBackbone`."""

    fingerprint: str
    """Hexadecimal digits: a hash over the weights and the preprocessing."""

    @property
    def preprocess(self) -> Preprocess: ...

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 -> (N, ...), all of one shape."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """A picture as the backbone sees it: number 0 is the picture itself, 1 and above are augmented views of it."""

    picture: Picture
    number: int = 0


class FeatureCache:
    """The features that one backbone gives, by the content of the pictures.

    Args:
        folder: holds one folder a backbone, named by its fingerprint.
        backbone: computes what is missing.
        augmentation: makes the views numbered 1 and above.
        shard_rows: rows of a shard.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        augmentation: Augmentation | None = None,
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        self.folder = folder / backbone.fingerprint[:16]
        self.backbone = backbone
        self.augmentation = augmentation or Augmentation()
        self.shard_rows = shard_rows
        self.skipped: list[Skipped] = []
        """Pictures that could not be read, since this object was made."""
        self._shards: list[NDArray[Any]] = []
        self._row_of: dict[str, int] = {}
        self._read_shards()

    def __len__(self) -> int:
        """Rows in the cache."""
        return len(self._row_of)

    def rows(self, views: Sequence[View], progress: Callable[[int], object] = lambda _: None) -> NDArray[np.int64]:
        """The cache's row of each view; what is not there yet is computed first, each content once.

        Args:
            views: N views; those of one file are best given one after the other.
            progress: called with the number of views done since.

        Returns:
            (N,) rows for `read`; -1 where the picture cannot be read, which is noted in `skipped`.

        Raises:
            EncoderError: another process is filling this cache.
        """
        hashes = _Hashes()
        keys = [self._key(view, hashes) for view in views]
        self._read_shards()
        missing = {key: view for key, view in zip(keys, views, strict=True) if key and key not in self._row_of}
        progress(len(views) - len(missing))
        if missing:
            self._compute_missing(missing, progress)
        found = [_UNREADABLE if key is None else self._row_of.get(key, _UNREADABLE) for key in keys]
        return np.array(found, dtype=np.int64)

    def read(self, rows: NDArray[np.int64]) -> Features:
        """The features of some rows: (N, tokens, width) float16, a copy."""
        shards, inside = np.divmod(rows, _STRIDE)
        first = self._shards[int(shards[0])]
        out = np.empty((len(rows), *first.shape[1:]), dtype=np.float16)
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self._shards[int(shard)][inside[here]]
        return out

    def _compute_missing(self, missing: dict[str, View], progress: Callable[[int], object]) -> None:
        """Fills shards under a lock; readers of what is there already need none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._read_shards()
                items = [(key, view) for key, view in missing.items() if key not in self._row_of]
                progress(len(missing) - len(items))
                for start in range(0, len(items), self.shard_rows):
                    part = items[start : start + self.shard_rows]
                    self._compute(part)
                    progress(len(part))
        except Timeout:
            raise EncoderError(f"{self.folder} is being filled by another process: wait for it to end") from None

    def _key(self, view: View, hashes: _Hashes) -> str | None:
        try:
            sha256 = hashes.sha256(view.picture)
        except PictureError as error:
            self._skip(view.picture, error)
            return None
        cell = view.picture.cell or ""
        return f"{sha256}{cell}" + (f"@{self.augmentation.fingerprint}.{view.number}" if view.number else "")

    def _compute(self, items: Sequence[tuple[str, View]]) -> None:
        """Writes one shard; pictures that cannot be decoded leave no row."""
        decoded = map_side_by_side(lambda item: self._decode(*item), items)
        keys = [key for (key, _), pixels in zip(items, decoded, strict=True) if pixels is not None]
        if not keys:
            return
        stack = np.stack([pixels for pixels in decoded if pixels is not None])
        features = np.ascontiguousarray(self.backbone.encode(stack), dtype=np.float16)
        number = len(self._shards)
        write_durably(self._path(number, "npy"), lambda file: np.save(file, features, allow_pickle=False))
        names = json.dumps(keys).encode()
        write_durably(self._path(number, "json"), lambda file: file.write(names))
        self._take(number, keys)
        logger.info("features of %d more views in %s, %d in all", len(keys), self.folder, len(self))

    def _decode(self, key: str, view: View) -> Pixels | None:
        try:
            image = open_picture(view.picture, read_bytes(view.picture))
        except PictureError as error:
            self._skip(view.picture, error)
            return None
        pixels = self.backbone.preprocess(image)
        return self.augmentation(pixels, key) if view.number else pixels

    def _skip(self, picture: Picture, error: PictureError) -> None:
        self.skipped.append(Skipped(picture.uri, error.reason, error.detail))

    def _read_shards(self) -> None:
        """Takes the shards that are whole and not yet known; a shard's names are written last."""
        while (names := self._path(len(self._shards), "json")).is_file():
            self._take(len(self._shards), json.loads(names.read_text(encoding="utf-8")))

    def _take(self, number: int, keys: Sequence[str]) -> None:
        array = np.load(self._path(number, "npy"), mmap_mode="r", allow_pickle=False)
        if len(array) != len(keys):
            path = self._path(number, "npy")
            raise EncoderError(f"{path} has {len(array)} rows, its names {len(keys)}: delete {self.folder}")
        self._shards.append(array)
        self._row_of |= {key: number * _STRIDE + row for row, key in enumerate(keys)}

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"features-{number:06d}.{suffix}"


def augmented(views: Sequence[View], number: int) -> list[View]:
    """The same pictures as views of another number."""
    return [replace(view, number=number) for view in views]


class _Hashes:
    """sha256 of pictures' bytes; the four quarters of a grid follow each other, and their file is read once."""

    def __init__(self) -> None:
        self._last: tuple[Picture, str] | None = None

    def sha256(self, picture: Picture) -> str:
        whole = replace(picture, cell=None)
        if self._last is None or self._last[0] != whole:
            self._last = whole, hashlib.sha256(read_bytes(whole)).hexdigest()
        return self._last[1]
