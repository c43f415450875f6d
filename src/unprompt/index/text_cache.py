"""Embeddings of texts on this machine, known by the encoder's fingerprint and the hash of each text."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from unprompt.index.files import cache_folder, write_durably
from unprompt.types import Encoder

logger = logging.getLogger(__name__)

_MAX_SEGMENTS = 16
_Place = tuple[Path, int]


class TextCache:
    """What one encoder made of texts, on disk, in segments that are written once and never changed.

    Libraries of one encoder share it, so a vocabulary that was embedded once costs nothing in the next library, nor
    when a library is built with another encoder and then with the first again. Deleting the folder loses time only.

    Args:
        encoder: whose embeddings they are.
        dtype: they are kept in, "float16" or "float32": what the library stores.
        root: the folder of all caches; by default `unprompt.index.files.cache_folder`.
    """

    def __init__(self, encoder: Encoder, dtype: str, root: Path | None = None) -> None:
        self.dim = encoder.dim
        self.dtype = np.dtype(dtype)
        self.folder = (root or cache_folder()) / "texts" / f"{encoder.fingerprint[:32]}-{dtype}"

    def take(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]:
        """Looks texts up.

        Returns:
            (N,) which were found, and (N, D) their embeddings, zero for those that were not.
        """
        found = np.zeros(len(texts), dtype=bool)
        embeddings = np.zeros((len(texts), self.dim), dtype=self.dtype)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for i, text in enumerate(texts):
            place = self._places.get(_key(text))
            if place is not None:
                wanted.setdefault(place[0], []).append((i, place[1]))
        for path, pairs in wanted.items():
            rows, at = (np.array(column) for column in zip(*pairs, strict=True))
            embeddings[rows] = load_file(path)["embeddings"][at]
            found[rows] = True
        return found, embeddings

    def put(self, texts: Sequence[str], embeddings: NDArray[np.floating[Any]]) -> None:
        """Keeps (N, D) embeddings of N distinct texts, durably from the moment this returns.

        Raises:
            OSError: the disk is full or the folder cannot be written; what was kept before stays.
        """
        if not texts:
            return
        keys = b"".join(_key(text) for text in texts)
        self._write(keys, np.ascontiguousarray(embeddings, dtype=self.dtype))
        self.__dict__.pop("_places", None)

    def compact(self) -> None:
        """Joins the segments when they have become many; a crash in between loses nothing."""
        paths = self._segments()
        if len(paths) <= _MAX_SEGMENTS:
            return
        rows: dict[bytes, NDArray[np.floating[Any]]] = {}
        for path in paths:
            if (keys := self._read_keys(path)) is not None:
                rows.update(zip(keys, load_file(path)["embeddings"], strict=True))
        joined = self._write(b"".join(rows), np.stack(list(rows.values())))
        for path in paths:
            if path != joined:
                path.unlink(missing_ok=True)
        self.__dict__.pop("_places", None)

    def _write(self, keys: bytes, embeddings: NDArray[np.floating[Any]]) -> Path:
        # Named by content: two processes that keep the same texts write the same file.
        path = self.folder / f"{hashlib.sha256(keys).hexdigest()[:32]}.safetensors"
        hashes = np.frombuffer(keys, dtype=np.uint8).reshape(len(embeddings), _KEY_BYTES)
        data = save({"keys": hashes, "embeddings": embeddings})
        write_durably(path, lambda file: file.write(data))
        return path

    @cached_property
    def _places(self) -> dict[bytes, _Place]:
        places: dict[bytes, _Place] = {}
        for path in self._segments():
            for row, key in enumerate(self._read_keys(path) or []):
                places[key] = (path, row)
        return places

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _read_keys(self, path: Path) -> list[bytes] | None:
        try:
            with safe_open(path, framework="numpy") as file:
                keys: NDArray[np.uint8] = file.get_tensor("keys")
                shape = file.get_slice("embeddings").get_shape()
            if shape != [len(keys), self.dim] or keys.shape[1:] != (_KEY_BYTES,):
                raise ValueError(f"embeddings of shape {shape} for {len(keys)} keys of {self.dim} dimensions")
        except (OSError, SafetensorError, ValueError) as error:
            logger.warning("%s is left out, for it cannot be read (%s)", path, error)
            return None
        data = keys.tobytes()
        return [data[start : start + _KEY_BYTES] for start in range(0, len(data), _KEY_BYTES)]


_KEY_BYTES = 16


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]
