"""Embeddings in .npy files, read a block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import SourceError

_DTYPES = (np.float16, np.float32, np.float64)


class ArrayFiles:
    """Several .npy files taken for one array, (rows, dim) of float16, float32 or float64, in the order given.

    Attributes:
        paths: the files.
        rows: of all files together.
        dim: columns, the same in each.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads the files' headers.

        Raises:
            SourceError: a file is missing, cut short, of another shape or dtype, or holds objects.
        """
        self.paths = list(paths)
        shapes = [_open(path).shape for path in self.paths]
        self.dim = shapes[0][1]
        for path, shape in zip(self.paths, shapes, strict=True):
            if shape[1] != self.dim:
                raise SourceError(
                    f"{path} has {shape[1]} columns, {self.paths[0].name} has {self.dim}; give them apart"
                )
        self._ends = np.cumsum([shape[0] for shape in shapes])
        self.rows = int(self._ends[-1])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns rows [start, stop) as a (stop - start, dim) copy; the files are mapped only while they are read."""
        pieces = []
        for path, end, begin in zip(self.paths, self._ends, [0, *self._ends[:-1]], strict=True):
            low, high = max(start, begin) - begin, min(stop, end) - begin
            if low < high:
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity, which is refused later
                    pieces.append(_open(path)[low:high].astype(np.float32))
        return np.concatenate(pieces) if pieces else np.zeros((0, self.dim), np.float32)

    def place(self, row: int) -> str:
        """Names a row for people: the file, and the row in it from 0."""
        at = int(np.searchsorted(self._ends, row, side="right"))
        begin = int(self._ends[at - 1]) if at else 0
        return f"row {row - begin} of {self.paths[at].name}"


def _open(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(f"{path} is missing; restore it") from None
    except (ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        if "object" in reason.lower():
            reason = "it holds Python objects; save it again as float32 with numpy.save"
        raise SourceError(f"{path} is not a readable array: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise SourceError(f"{path} is an archive of arrays (.npz); save each array as .npy")
    if array.ndim != 2 or not array.shape[1] or array.dtype.newbyteorder("=") not in _DTYPES:
        raise SourceError(f"{path} holds {array.dtype} {array.shape}; embeddings are float16 or float32 (rows, dim)")
    return array
