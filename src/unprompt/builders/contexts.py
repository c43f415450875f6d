"""Embedding a vocabulary's terms at the end of a prompt, once for this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unprompt.builders.vocabulary import embed_texts
from unprompt.errors import LibraryError
from unprompt.index.contexts import DTYPE, in_context
from unprompt.index.library import Library
from unprompt.index.text_cache import TextCache
from unprompt.types import Encoder


def embed_contexts(
    path: Path | str,
    encoder: Encoder,
    progress: Callable[[int], object] | None = None,
    cache: TextCache | None = None,
) -> tuple[int, int]:
    """Embeds all terms of a library's vocabulary in context, and keeps the embeddings on this machine.

    The library is not changed. What is encoded is kept as it comes, so a run that is killed loses at most one call of
    the encoder.

    Args:
        path: the library's folder.
        encoder: must be the library's own.
        progress: called with the number of terms dealt with since the last call.
        cache: of this encoder; by default this machine's.

    Returns:
        How many terms there are, and how many of them were encoded now.

    Raises:
        LibraryError: there is no such library, it is of another encoder, or has no fragments.
        OSError: the disk is full; what was kept stays.
    """
    library = Library.open(path)
    made_by = library.manifest.encoder
    if encoder.fingerprint != made_by.fingerprint:
        raise LibraryError(f"{path} was built with encoder {made_by.name!r}, not with {encoder.name!r}")
    terms = sorted(set(library.vocabulary.terms), key=lambda term: (len(term), term))
    if not terms:
        raise LibraryError(f"{path} has no fragments: add some with unprompt vocabulary add")
    _, encoded = embed_texts(in_context(terms), encoder, cache or TextCache(encoder, DTYPE), progress)
    return len(terms), encoded
