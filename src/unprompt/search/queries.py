"""What is searched with: a point of the encoder's space, from pictures, words, an embedding, or several of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unprompt.errors import QueryError
from unprompt.types import Encoder

LESS_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One embedded query.

    Attributes:
        name: what results call it.
        embedding: (D,) float32 of norm 1.
        recorded: the prompt in the picture's own metadata, None when there is none.
        sha256: of the picture's file, None when the query is no file.
        picture: what captioners look at, None where there is no one picture, or nobody to look at it.
    """

    name: str
    embedding: NDArray[np.float32]
    recorded: str | None = None
    sha256: str | None = None
    picture: Image.Image | None = None


def text_queries(texts: Sequence[str], encoder: Encoder) -> list[Query]:
    """Queries with words, as if they were pictures of what they say.

    Raises:
        QueryError: a text is blank.
    """
    for text in texts:
        if not text.strip():
            raise QueryError(f"the text {text!r} is blank; say what to search for")
    return [Query(text, row) for text, row in zip(texts, encoder.encode_texts(texts), strict=True)]


def embedding_queries(embeddings: NDArray[Any], dim: int, name: str = "embedding") -> list[Query]:
    """Queries with embeddings of the library's encoder: (D,) or (N, D) floats, normalised here.

    Raises:
        QueryError: they have another shape, are no real numbers, not finite, or zero.
    """
    rows = np.atleast_2d(embeddings)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise QueryError(f"{name} has shape {tuple(np.shape(embeddings))}, this library takes ({dim},) or (N, {dim})")
    if not np.issubdtype(rows.dtype, np.floating):
        raise QueryError(f"{name} is {rows.dtype}, pass floating-point numbers")
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    for row, norm in enumerate(norms):
        if not (np.isfinite(norm) and norm > 0):
            raise QueryError(f"row {row} of {name} has norm {norm}, pass finite numbers that are not all zero")
    unit = np.ascontiguousarray(rows / norms[:, None], dtype=np.float32)
    names = [name] if len(rows) == 1 else [f"{name}[{row}]" for row in range(len(rows))]
    return [Query(each, row) for each, row in zip(names, unit, strict=True)]


def read_embeddings(path: Path | str, dim: int) -> list[Query]:
    """Queries with the embeddings in a ``.npy`` file; see `embedding_queries`.

    Raises:
        QueryError: it is no such file, or holds something else.
    """
    try:
        with Path(path).open("rb") as file:  # np.load would take what is no .npy for a pickle
            embeddings = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise QueryError(f"{path} cannot be read as .npy ({error}); write it with numpy.save") from None
    return embedding_queries(embeddings, dim, str(path))


def combine(more: Sequence[Query], less: Sequence[Query] = (), less_weight: float = LESS_WEIGHT) -> Query:
    """One query from several: what `more` have in common, away from what `less` have (Rocchio, 1971).

    The result is the mean of `more` less `less_weight` times the mean of `less`, normalised. It has no file, no
    recorded prompt and no picture (a caption says what one picture shows, not what several have in common), unless it
    is a single query unchanged.

    Raises:
        QueryError: `more` is empty, the weight is negative, or nothing is left of the mean.
    """
    if not more:
        raise QueryError("nothing to search for; give at least one picture, text or embedding beside what to avoid")
    if not 0 <= less_weight < np.inf:
        raise QueryError(f"the weight of what to avoid is {less_weight}, use 0 or more")
    if len(more) == 1 and not less:
        return more[0]
    total = np.mean([query.embedding for query in more], axis=0, dtype=np.float64)
    if less:
        total -= less_weight * np.mean([query.embedding for query in less], axis=0, dtype=np.float64)
    name = " + ".join(query.name for query in more) + "".join(f" - {query.name}" for query in less)
    norm = float(np.linalg.norm(total))
    if norm < _NOTHING:
        raise QueryError(f"{name} cancel out; give less weight to what to avoid")
    unit: NDArray[np.float32] = np.asarray(total, dtype=np.float32) / np.float32(norm)
    return Query(name, unit)


_NOTHING = 1e-6
