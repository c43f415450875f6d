"""clip-interrogator's caches of text embeddings, read together with the lists that they were made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.fragments.lists import SITES, TRENDING
from unprompt.errors import SourceError
from unprompt.types import Embeddings


def ci_labels(source: Path | str) -> list[str]:
    """The labels that clip-interrogator 0.6 makes of a list, in its order, blank and repeated ones included.

    Args:
        source: one of its list files; "artists.txt" gives "by X" of all, then "inspired by X" of all. Or "trendings",
            the table that it generates.

    Raises:
        SourceError: the file is not there.
    """
    if source == "trendings":
        sites = ["dribble" if site == "dribbble" else site for site in SITES]
        return [form.format(site) for form in TRENDING for site in sites]
    path = Path(source)
    try:
        # As clip-interrogator reads it: what is not UTF-8 is replaced, lines are stripped and none is left out.
        with path.open(encoding="utf-8", errors="replace") as file:
            terms = [line.strip() for line in file]
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None
    return [f"{form} {term}" for form in ("by", "inspired by") for term in terms] if path.stem == "artists" else terms


def read_ci_cache(cache: Path, labels: Sequence[str]) -> Embeddings:
    """Reads the text embeddings that clip-interrogator cached for a table of labels.

    A cache holds ``embeds``, (N, D) float16, and ``hash``, the sha256 of the labels joined by commas, one character an
    int8; not the labels themselves.

    Args:
        cache: such as ``ViT-L-14_openai_artists.safetensors``.
        labels: the N labels, in order; `ci_labels` makes them of a list file.

    Returns:
        (N, D) float32, rows L2-normalised again after the rounding to float16.

    Raises:
        SourceError: the file is no such cache, or was made of other labels.
    """
    embeds, found = _load(cache)
    expected = hashlib.sha256(",".join(labels).encode()).hexdigest()
    if found != expected:
        raise SourceError(
            f"{cache} was made of other labels: its hash is {found[:12]}, that of the {len(labels):,} given is "
            f"{expected[:12]}; give the list file of the same clip-interrogator version"
        )
    if embeds.ndim != 2 or len(embeds) != len(labels):
        raise SourceError(f"{cache} has embeddings of shape {embeds.shape} for {len(labels):,} labels; delete it")
    rows = embeds.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)  # (N, 1)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise SourceError(f"{cache} has rows that are zero or not finite; delete it and let it be made again")
    return np.ascontiguousarray(rows / norms)


def _load(cache: Path) -> tuple[NDArray[np.floating], str]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(cache)
    except (SafetensorError, OSError, KeyError) as error:
        raise SourceError(f"{cache} is not a readable safetensors file ({error})") from None
    missing = [name for name in ("embeds", "hash") if name not in tensors]
    if missing:
        raise SourceError(f"{cache} is no cache of clip-interrogator: it has no {missing[0]!r} among {sorted(tensors)}")
    return tensors["embeds"], "".join(chr(code & 0x7F) for code in tensors["hash"].ravel().tolist())
