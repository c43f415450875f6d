"""Writing predicted embeddings: a Kaggle submission, an array, or JSON lines; and a journal to go on from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np

from unprompt.errors import EvaluationError
from unprompt.evaluation.metrics.kaggle import write_submission
from unprompt.evaluation.metrics.sentence_cosine import DIM
from unprompt.index.files import write_durably
from unprompt.types import Embeddings

logger = logging.getLogger(__name__)

JOURNAL = ".journal"


def picture_id(name: str) -> str:
    """What Kaggle calls a picture: its file's name without folder and ending."""
    return PurePath(name).stem


def write_kaggle(path: Path, names: Sequence[str], rows: Embeddings) -> None:
    """``imgId_eId,val``, 384 rows a picture, pictures by id as in the competition's sample submission.

    Raises:
        EvaluationError: two pictures have one id, or an id cannot stand in a csv.
        OSError: the file cannot be written.
    """
    ids = [picture_id(name) for name in names]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    write_submission(path, [ids[i] for i in order], rows[order])


def write_npy(path: Path, names: Sequence[str], rows: Embeddings) -> None:
    """(N, 384) float32, and the pictures' names beside it, in PATH.txt, a line each. The array is written last."""
    lines = "".join(" ".join(name.splitlines()) + "\n" for name in names).encode("utf-8", "surrogateescape")
    write_durably(path.with_name(path.name + ".txt"), lambda file: file.write(lines))
    write_durably(path, lambda file: np.save(file, rows, allow_pickle=False))


def write_jsonl(path: Path, names: Sequence[str], rows: Embeddings) -> None:
    """One object a line: ``{"image": NAME, "embedding": [384 numbers]}``."""

    def write(file: BinaryIO) -> None:
        for name, row in zip(names, rows, strict=True):
            file.write(_line(name, row))

    write_durably(path, write)


WRITERS: dict[str, Callable[[Path, Sequence[str], Embeddings], None]] = {
    "kaggle": write_kaggle,
    "npy": write_npy,
    "jsonl": write_jsonl,
}
"""Formats by name."""


class Journal:
    """What was predicted so far, in a file beside the one to be written; a run that was killed goes on from there.

    Args:
        path: of the file to be written.
        facts: what decides the predictions; a journal of others is begun anew.

    Attributes:
        known: name of a picture -> its embedding.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._path = path.with_name(path.name + JOURNAL)
        self._head = (json.dumps({"journal": 1, **facts}, sort_keys=True) + "\n").encode()
        self.known: dict[str, Embeddings] = {}
        good = self._read()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("r+b" if good else "wb")
        if good:
            # A line that was cut off when the run before was killed goes.
            self._file.truncate(good)
            self._file.seek(good)
        else:
            self._file.write(self._head)
            self._file.flush()

    def add(self, names: Sequence[str], rows: Embeddings) -> None:
        """Remembers a batch: (N, 384)."""
        self._file.write(b"".join(_line(name, row) for name, row in zip(names, rows, strict=True)))
        self._file.flush()
        self.known.update(zip(names, rows, strict=True))

    def close(self) -> None:
        """Closes the file; what it holds is there for the next run."""
        self._file.close()

    def delete(self) -> None:
        """Closes and deletes the file."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> int:
        """Reads whole lines; returns how many bytes of the file are good."""
        if not self._path.is_file():
            return 0
        with self._path.open("rb") as file:
            if file.readline() != self._head:
                logger.warning("%s is of another run and is begun anew", self._path)
                return 0
            good = file.tell()
            for line in file:
                parsed = _parse(line)
                if parsed is None:
                    break
                self.known[parsed[0]] = parsed[1]
                good += len(line)
        return good


def check_writable(path: Path, format_: str, names: Sequence[str]) -> None:
    """Checks before hours of work what would stop the writing after.

    Raises:
        EvaluationError: the format is unknown, the path is a folder, or two pictures have one id in a submission.
    """
    if format_ not in WRITERS:
        raise EvaluationError(f"unknown format {format_!r}: use one of {', '.join(WRITERS)}")
    if path.is_dir():
        raise EvaluationError(f"{path} is a folder: name a file to write")
    if format_ == "kaggle":
        seen: dict[str, str] = {}
        for name in names:
            first = seen.setdefault(picture_id(name), name)
            if first != name:
                raise EvaluationError(
                    f"{first} and {name} have one id, {picture_id(name)!r}, in a submission: rename one of them"
                )


def _line(name: str, row: Embeddings) -> bytes:
    # str of a NumPy scalar is the shortest text that reads back as the same float32.
    numbers = ", ".join(map(str, row))
    return f'{{"image": {json.dumps(name)}, "embedding": [{numbers}]}}\n'.encode()


def _parse(line: bytes) -> tuple[str, Embeddings] | None:
    try:
        values = json.loads(line)
        row = np.array(values["embedding"], dtype=np.float32)
    except (ValueError, KeyError, TypeError):
        return None
    return (values["image"], row) if line.endswith(b"\n") and row.shape == (DIM,) else None
