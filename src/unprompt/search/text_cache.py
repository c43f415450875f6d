"""Embeddings of texts that were asked for lately, so that what many pictures have in common is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unprompt.types import DraftEncoder, Embeddings

SIZE = 8192
"""Texts that are kept: 12 MiB of 384 dimensions."""


class TextEncoder(Protocol):
    """The half of an encoder that reads texts."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...


class TextCache:
    """Encodes texts, and keeps the embeddings of those that were asked for last.

    Args:
        encoder: what is not kept is encoded by; all the new texts of a call together.
        size: how many texts are kept, at least 1.
    """

    def __init__(self, encoder: TextEncoder, size: int = SIZE) -> None:
        self._encoder = encoder
        self._size = size
        self._kept: dict[str, NDArray[np.float32]] = {}  # the one asked for last comes last

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, D), as the encoder does."""
        if not texts:
            return self._encoder.encode_texts(texts)
        rows: dict[str, NDArray[np.float32]] = {}
        new: list[str] = []
        for text in dict.fromkeys(texts):
            # Taken out and put back by single operations, so that threads may share it.
            row = self._kept.pop(text, None)
            if row is None:
                new.append(text)
            else:
                rows[text] = row
        if new:
            rows |= {text: row.copy() for text, row in zip(new, self._encoder.encode_texts(new), strict=True)}
        self._kept |= rows
        for text in list(self._kept)[: -self._size]:
            self._kept.pop(text, None)
        return np.stack([rows[text] for text in texts])

    def draft_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, D), roughly where that is sooner; such embeddings are not kept."""
        if isinstance(self._encoder, DraftEncoder) and self._encoder.drafts:
            return self._encoder.draft_texts(texts)
        return self.encode_texts(texts)
