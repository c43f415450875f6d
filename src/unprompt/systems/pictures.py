"""Embeddings of pictures, each computed once, whatever the number of systems that use them."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unprompt.evaluation.cache import RecordStore
from unprompt.evaluation.items import Item
from unprompt.pictures.opening import PictureError, open_picture, read_bytes
from unprompt.types import Embeddings, Encoder, Pixels

logger = logging.getLogger(__name__)

BATCH = 64


@dataclass
class Encodings:
    """How many pictures a model was asked for, how many it encoded in this run, and in how many seconds."""

    pictures: int = 0
    encoded: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"pictures": self.pictures, "encoded_now": self.encoded, "seconds_now": round(self.seconds, 3)}


class PictureEncoder:
    """Embeddings of pictures by one encoder, kept on disk by the pictures' content.

    Args:
        fingerprint: of the encoder.
        load: loads it, when a picture is not known yet.
        folder: of all encoders' embeddings.
    """

    def __init__(self, fingerprint: str, load: Callable[[], Encoder], folder: Path) -> None:
        self.encodings = Encodings()
        self._load = load
        self._store = RecordStore(folder / fingerprint[:32])

    def readable(self, items: Sequence[Item], progress: Callable[[str, int, int], object]) -> list[Item]:
        """Encodes what is not known yet, a batch at a time, and gives the items whose pictures can be decoded."""
        distinct = {item.key: item for item in items}
        missing = [item for key, item in distinct.items() if self._store.get(key) is None]
        self.encodings.pictures = len(distinct)
        done = len(distinct) - len(missing)
        bad: set[str] = set()
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            bad |= self._encode(batch)
            done += len(batch)
            progress("encoding", done, len(distinct))
        self._store.compact()
        return [item for item in items if item.key not in bad]

    def __call__(self, items: Sequence[Item]) -> Embeddings:
        """(N, D) of items that `readable` gave."""
        rows = [np.frombuffer(base64.b64decode(self._store.get(item.key)), dtype="<f4") for item in items]
        return np.ascontiguousarray(np.stack(rows), dtype=np.float32)

    def _encode(self, batch: Sequence[Item]) -> set[str]:
        """Keeps the embeddings of a batch; gives the keys of pictures that cannot be decoded."""
        encoder = self._load()
        started = time.perf_counter()
        pixels: dict[str, Pixels] = {}
        for item in batch:
            try:
                pixels[item.key] = encoder.preprocess(open_picture(item.picture, read_bytes(item.picture)))
            except PictureError as error:
                logger.warning("%s is left out", error)
        rows = encoder.encode_images(list(pixels.values())) if pixels else ()
        values = {
            key: base64.b64encode(row.astype("<f4").tobytes()).decode() for key, row in zip(pixels, rows, strict=True)
        }
        self._store.put(values)
        self.encodings.encoded += len(values)
        self.encodings.seconds += time.perf_counter() - started
        return {item.key for item in batch} - pixels.keys()
