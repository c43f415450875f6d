"""Adding fragments to a library's vocabulary and removing them; only new texts are encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from unprompt.builders.build import encoder_info
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.index.refresh import replace_vocabulary
from unprompt.index.vocabulary import Vocabulary
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Encoder, Fragment

_TEXTS_A_CALL = 2048


def add_fragments(
    path: Path | str, fragments: Sequence[Fragment], encoder: Encoder, progress: Callable[[int], object] | None = None
) -> int:
    """Adds fragments to a library's vocabulary.

    Args:
        path: the library's folder.
        fragments: what to add; one whose text and kind are there already is left as it is.
        encoder: must be the library's own.
        progress: called with the number of fragments dealt with since the last call.

    Returns:
        How many texts were encoded: a text that is there under another kind is not encoded again.

    Raises:
        LibraryError: the library is locked or of another encoder.
    """
    with LibraryWriter(path, encoder_info(encoder)) as writer:
        vocabulary = _vocabulary(writer)
        old = vocabulary.fragments()
        there = {(fragment.text, fragment.kind) for fragment in old}
        new = [f for f in dict.fromkeys(fragments) if (f.text, f.kind) not in there]
        row_of = {fragment.text: row for row, fragment in reversed(list(enumerate(old)))}
        texts = list(dict.fromkeys(fragment.text for fragment in new if fragment.text not in row_of))
        if progress:
            progress(len(fragments) - len(texts))
        encoded = _encode(texts, encoder, progress)
        row_of |= {text: len(old) + row for row, text in enumerate(texts)}
        if new:
            stored = vocabulary.embeddings.astype(writer.dtype, copy=False)
            embeddings = np.concatenate([stored, encoded.astype(writer.dtype)])
            rows = [*range(len(old)), *(row_of[fragment.text] for fragment in new)]
            replace_vocabulary(writer, Vocabulary.of([*old, *new], embeddings[rows]))
        return len(texts)


def remove_fragments(path: Path | str, texts: Collection[str] = (), kinds: Collection[str] = ()) -> int:
    """Removes fragments by text, by kind, or those of both when both are given. Returns how many went.

    Raises:
        LibraryError: the library is locked, or nothing matches.
    """
    with LibraryWriter(path) as writer:
        vocabulary = _vocabulary(writer)
        fragments = vocabulary.fragments()
        kept = [
            row
            for row, fragment in enumerate(fragments)
            if (texts and fragment.text not in texts) or (kinds and fragment.kind not in kinds)
        ]
        gone = len(fragments) - len(kept)
        if not gone:
            wanted = ", ".join(map(repr, [*texts, *kinds]))
            raise LibraryError(f"the vocabulary of {path} has no fragment that matches {wanted}")
        replace_vocabulary(writer, Vocabulary.of([fragments[row] for row in kept], vocabulary.embeddings[kept]))
        return gone


def _vocabulary(writer: LibraryWriter) -> Vocabulary:
    if writer.previous is None:
        raise LibraryError(f"{writer.root} is not finished; run its build again first")
    return Library(writer.root, writer.previous).vocabulary


def _encode(texts: Sequence[str], encoder: Encoder, progress: Callable[[int], object] | None) -> Embeddings:
    # By length, so that a batch holds texts of one length and little is padded; put back in order at the end.
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row]))
    result = np.empty((len(texts), encoder.dim), dtype=np.float32)
    for start in range(0, len(order), _TEXTS_A_CALL):
        rows = order[start : start + _TEXTS_A_CALL]
        result[rows] = encoder.encode_texts([texts[row] for row in rows])
        if progress:
            progress(len(rows))
    return result
