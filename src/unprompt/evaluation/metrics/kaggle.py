"""Submissions to Kaggle's "Stable Diffusion - Image to Prompts": a csv of 384 rows a picture.

imgId_eId,val
20057f34d_0,0.018848453
20057f34d_1,0.030189732
...
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.evaluation.metrics.sentence_cosine import DIM
from unprompt.index.files import write_durably

HEADER = ["imgId_eId", "val"]


@dataclass(frozen=True, slots=True, eq=False)
class Submission:
    """Predicted prompt embeddings of N pictures.

    Attributes:
        ids: the pictures' ids: file names without their ending, all different.
        embeddings: (N, 384) float64, one row an id.
    """

    ids: tuple[str, ...]
    embeddings: NDArray[np.float64]

    def of(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """The embeddings of some pictures, in the order asked for.

        Raises:
            EvaluationError: a picture is not in the submission.
        """
        rows = {identity: row for row, identity in enumerate(self.ids)}
        missing = [identity for identity in ids if identity not in rows]
        if missing:
            raise EvaluationError(f"the submission lacks {len(missing)} pictures, {missing[0]!r} the first: add them")
        return self.embeddings[[rows[identity] for identity in ids]]


def write_submission(path: Path, ids: Sequence[str], embeddings: NDArray[np.floating[Any]]) -> None:
    """Writes ``submission.csv``; values have as many digits as their type needs to be read back exactly.

    Args:
        path: the file, replaced in one step when all of it is written.
        ids: N different ids, without commas, quotes and line breaks.
        embeddings: (N, 384), finite.

    Raises:
        EvaluationError: an id or the embeddings are not as described.
        OSError: the file cannot be written.
    """
    if embeddings.shape != (len(ids), DIM):
        raise EvaluationError(f"{len(ids)} ids and embeddings of shape {embeddings.shape}: give ({len(ids)}, {DIM})")
    if not np.isfinite(embeddings).all():
        raise EvaluationError("an embedding is not finite: predict it again before writing a submission")
    _check_ids(ids)

    def write(file: BinaryIO) -> None:
        file.write((",".join(HEADER) + "\n").encode())
        for identity, row in zip(ids, embeddings, strict=True):
            # str of a NumPy scalar is the shortest text that reads back as the same value of its type.
            file.write("".join(f"{identity}_{e},{value!s}\n" for e, value in enumerate(row)).encode())

    write_durably(path, write)


def read_submission(path: Path) -> Submission:
    """Reads a submission. Rows may come in any order; pictures keep the order in which they first appear.

    Raises:
        EvaluationError: the file is missing or not a submission; the message names the line or the picture.
    """
    rows: dict[str, NDArray[np.float64]] = {}
    for line, identity, e, value in _values(path):
        row = rows.setdefault(identity, np.full(DIM, np.nan))
        if not np.isnan(row[e]):
            raise EvaluationError(f"{path}, line {line}: {identity}_{e} is there twice: keep one of them")
        row[e] = value
    if not rows:
        raise EvaluationError(f"{path} holds no picture: a submission has {DIM} rows a picture")
    embeddings = np.stack(list(rows.values()))
    short = np.flatnonzero(np.isnan(embeddings).any(axis=1))
    if short.size:
        identity, e = list(rows)[short[0]], int(np.flatnonzero(np.isnan(embeddings[short[0]]))[0])
        raise EvaluationError(f"{path}: picture {identity!r} lacks value {e}: a picture has rows 0 to {DIM - 1}")
    return Submission(tuple(rows), embeddings)


def _values(path: Path) -> Iterator[tuple[int, str, int, float]]:
    """(line, picture, place, value) of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != HEADER:
                raise EvaluationError(f"{path} does not begin with {','.join(HEADER)}: it is no Kaggle submission")
            for cells in reader:
                yield _parse(path, reader.line_num, cells)
    except FileNotFoundError:
        raise EvaluationError(f"no submission {path}: give the path of a submission.csv") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise EvaluationError(f"{path} cannot be read as csv ({error}): write it again") from None


def _parse(path: Path, line: int, cells: list[str]) -> tuple[int, str, int, float]:
    try:
        key, value = cells
        identity, _, place = key.rpartition("_")
        e, number = int(place), float(value)
    except ValueError:
        raise EvaluationError(f"{path}, line {line}: {cells} is not ID_PLACE,VALUE: correct the row") from None
    if not identity or not 0 <= e < DIM or not np.isfinite(number):
        raise EvaluationError(
            f"{path}, line {line}: {cells} is not ID_0 to ID_{DIM - 1} and a finite value: correct it"
        )
    return line, identity, e, number


def _check_ids(ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        twice = next(identity for identity, count in Counter(ids).items() if count > 1)
        raise EvaluationError(f"picture {twice!r} is there twice: a submission has each picture once")
    bad = next((identity for identity in ids if not identity or set(identity) & set(',"\r\n')), None)
    if bad is not None:
        raise EvaluationError(f"picture id {bad!r} cannot stand in a csv: use ids without commas, quotes, line breaks")
