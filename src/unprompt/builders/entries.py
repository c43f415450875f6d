"""Entries that bring more than a place: the bytes of their picture, or embeddings that were made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import SourceError
from unprompt.types import Embeddings, Encoder, Entry, Skipped

Vector = NDArray[np.float32]
"""(D,) float32 of L2 norm 1."""

NORM_TOLERANCE = 1e-3
"""How far from 1 the norm of a row may be that is taken as it is; rounding to float16 moves it by less than 5e-4."""

MIN_AGREEMENT = 0.9
"""The least median cosine between imported embeddings of prompts and the named encoder's own. The same encoder in half
precision or on another device gives over 0.99; another encoder of the same dimension gives under 0.5."""

_PROBES = 8
_PICTURES_ADVICE = ", or, if they are of pictures, call the file img_emb.npy or name the column with --embedding-column"


@dataclass(frozen=True, slots=True)
class InlineEntry(Entry):
    """An entry whose picture's encoded bytes are at hand; `picture` only says where they came from."""

    data: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedEntry(Entry):
    """An entry whose embeddings are taken as they are.

    Attributes:
        image: of the picture; None for a prompt alone.
        text: of the prompt; None leaves it to the encoder.
        id: the row's id where its table has one, from an exported library; "" otherwise.
    """

    image: Vector | None = None
    text: Vector | None = None
    id: str = ""


@runtime_checkable
class EmbeddingSource(Protocol):
    """A source of `EmbeddedEntry`.

    Attributes:
        name: where it is, for errors.
        dim: of its embeddings.
        fingerprint: of the encoder that made them, "" where the source does not say.
    """

    format: str
    name: str
    dim: int
    fingerprint: str

    def __iter__(self) -> Iterator[Entry | Skipped]: ...


def normalise(rows: NDArray[np.floating[Any]]) -> tuple[Embeddings, NDArray[np.bool_]]:
    """Brings (N, D) rows to norm 1, unless they have it within `NORM_TOLERANCE`.

    Returns:
        The rows, and (N,) whether each is usable: finite and not zero. The others are left as they are.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    usable = np.isfinite(norms) & (norms > 0.0)
    off = usable & (np.abs(norms - 1.0) > NORM_TOLERANCE)
    if off.any():
        rows = rows.copy()
        rows[off] = rows[off] / norms[off, None]
    return rows, usable


def check_encoder(source: EmbeddingSource, encoder: Encoder) -> None:
    """Checks what can be checked of the claim that `encoder` made a source's embeddings.

    Raises:
        SourceError: the dimension or the recorded fingerprint is another, or the embeddings of the first prompts are
            far from the encoder's own.
    """
    advice = "name the encoder that made them with --encoder"
    if source.dim != encoder.dim:
        raise SourceError(
            f"the embeddings of {source.name} have {source.dim} dimensions, encoder {encoder.name} has {encoder.dim}; "
            f"{advice}"
        )
    if source.fingerprint and source.fingerprint != encoder.fingerprint:
        raise SourceError(
            f"the embeddings of {source.name} say they were made by encoder {source.fingerprint[:12]}, not by "
            f"{encoder.name} ({encoder.fingerprint[:12]}); {advice}"
        )
    probes = _probes(source)
    if not probes:
        return
    own = encoder.encode_texts([entry.prompt for entry in probes])
    given = np.stack([entry.text for entry in probes if entry.text is not None])
    agreement = float(np.median(np.sum(own * given, axis=1)))
    if agreement < MIN_AGREEMENT:
        raise SourceError(
            f"the embeddings of {source.name} are not those of {encoder.name}: over {len(probes)} prompts the median "
            f"cosine with its own is {agreement:.2f}; {advice}{_PICTURES_ADVICE if probes[0].image is None else ''}"
        )


def _probes(source: EmbeddingSource) -> list[EmbeddedEntry]:
    """Some of the first entries whose prompts came with embeddings."""
    probes: list[EmbeddedEntry] = []
    for at, entry in enumerate(source):
        if isinstance(entry, EmbeddedEntry) and entry.text is not None:
            probes.append(entry)
        if len(probes) == _PROBES or at >= 100 * _PROBES:
            break
    return probes
