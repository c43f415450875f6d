"""Embeddings of whole prompts that a library has stored, so that they need not be encoded for ranking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unprompt.search.candidates import Found
from unprompt.types import Candidate, Embeddings

Known = Mapping[str, NDArray[np.float64]]
"""Texts with their embeddings (D,), of norm 1."""


class StoredTexts(Protocol):
    """A library on this machine, see `unprompt.index.library.Library`."""

    def picture_texts(self, rows: Sequence[int]) -> Embeddings:
        """The embeddings of the prompts of rows of the image index, (N, D)."""
        ...

    def prompt_texts(self, rows: Sequence[int]) -> Embeddings | None:
        """The embeddings of rows of the prompt index, (N, D); None where it does not hold them precisely."""
        ...


@runtime_checkable
class PushedTexts(Protocol):
    """A library in a database, see `unprompt.backends.remote.PushedLibrary`."""

    def prompt_vectors(self, prompts: Collection[str]) -> Mapping[str, NDArray[np.float32]]:
        """The embeddings, (D,), of those of the prompts that it has."""
        ...


def stored_texts(
    library: StoredTexts | PushedTexts, found: Sequence[Found], candidates: Sequence[Sequence[Candidate]]
) -> list[Known]:
    """The stored embeddings of those candidates of Q pictures that are prompts of the library, unchanged.

    Each picture has its own, from its neighbours before its near prompts, so that they do not depend on what else is in
    the batch. They are stored in half precision, which moves their cosines by less than 0.001. A database is asked once
    for all of them.

    Args:
        library: what was searched.
        found: for each picture.
        candidates: of each picture.
    """
    wanted = [{each.prompt for each in held} for held in candidates]
    if isinstance(library, PushedTexts):
        return _pushed(library, found, wanted)
    of_pictures = [
        {each.record.prompt: each.hit.row for each in reversed(one.neighbours) if each.record.prompt in prompts}
        for one, prompts in zip(found, wanted, strict=True)
    ]
    of_prompts = [
        {hit.id: hit.row for hit in one.near if hit.id in prompts and hit.id not in others}
        for one, prompts, others in zip(found, wanted, of_pictures, strict=True)
    ]
    pictures = _read(library.picture_texts, of_pictures)
    prompts = _read(library.prompt_texts, of_prompts)
    return [{**others, **own} for others, own in zip(prompts, pictures, strict=True)]


def _read(
    read: Callable[[Sequence[int]], Embeddings | None], located: Sequence[Mapping[str, int | None]]
) -> list[dict[str, NDArray[np.float64]]]:
    """Reads every row once; texts without a row are left out."""
    rows = sorted({row for each in located for row in _located(each.values())})
    stored = read(rows) if rows else None
    if stored is None:
        return [{} for _ in located]
    vector_of = dict(zip(rows, _normalised(stored), strict=True))
    return [{text: vector_of[row] for text, row in each.items() if row is not None} for each in located]


def _pushed(library: PushedTexts, found: Sequence[Found], wanted: Sequence[set[str]]) -> list[Known]:
    """The embeddings of the library's own prompts among those wanted; what was composed is in no database."""
    owns = [
        prompts & ({each.record.prompt for each in one.neighbours} | {hit.id for hit in one.near})
        for one, prompts in zip(found, wanted, strict=True)
    ]
    asked = sorted(set().union(*owns))
    stored = library.prompt_vectors(asked) if asked else {}
    if not stored:
        return [{} for _ in owns]
    vector_of = dict(zip(stored, _normalised(np.stack(list(stored.values()))), strict=True))
    return [{text: vector_of[text] for text in sorted(own) if text in vector_of} for own in owns]


def _normalised(stored: Embeddings) -> NDArray[np.float64]:
    vectors = stored.astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def _located(rows: Iterable[int | None]) -> list[int]:
    return [row for row in rows if row is not None]
