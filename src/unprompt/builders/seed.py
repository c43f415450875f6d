"""Taking over text embeddings that another program has made with the same model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unprompt.builders.fragments import ci_labels, read_ci_cache
from unprompt.errors import SourceError
from unprompt.index.text_cache import TextCache
from unprompt.types import Encoder

_CHECKED = 16
_AGREEMENT = 0.99
"""Cosine below which two embeddings of one text are not those of one model: half precision leaves 0.999 and more."""


def seed_from_ci(cache_file: Path, labels_from: Path | str, encoder: Encoder, cache: TextCache) -> int:
    """Puts the embeddings that clip-interrogator cached into this machine's cache, so that they are not made again.

    A few labels, evenly spaced over the list, are encoded and compared first.

    Args:
        cache_file: such as ``ViT-L-14_openai_artists.safetensors``.
        labels_from: the list file that it was made of, or "trendings"; see `ci_labels`.
        encoder: the library's.
        cache: of that encoder.

    Returns:
        How many texts are known now that were in the file.

    Raises:
        SourceError: the file is no such cache, is of other labels, or was made by another model.
    """
    labels = ci_labels(labels_from)
    embeddings = read_ci_cache(cache_file, labels)  # (N, D)
    rows = {label: row for row, label in reversed(list(enumerate(labels))) if label}
    if embeddings.shape[1] != encoder.dim:
        raise SourceError(f"{cache_file} has {embeddings.shape[1]} dimensions, {encoder.name} has {encoder.dim}")
    _compare(cache_file, list(rows), embeddings[list(rows.values())], encoder)
    cache.put(list(rows), embeddings[list(rows.values())])
    return len(rows)


def _compare(cache_file: Path, texts: Sequence[str], embeddings: np.ndarray, encoder: Encoder) -> None:
    chosen = np.unique(np.linspace(0, len(texts) - 1, _CHECKED).astype(int)) if texts else np.zeros(0, dtype=int)
    own = encoder.encode_texts([texts[i] for i in chosen])
    for i, cosine in zip(chosen, np.sum(own * embeddings[chosen], axis=1), strict=True):
        if cosine < _AGREEMENT:
            raise SourceError(
                f"{cache_file} was made by another model than {encoder.name}: its embedding of {texts[i]!r} has cosine "
                f"{cosine:.3f} with ours; leave it out"
            )
