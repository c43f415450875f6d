"""Adding fragments to a library's vocabulary, hiding them, bringing them back; only new texts are encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.build import encoder_info
from unprompt.builders.calibrate import MIN_REFERENCE, fit, reference_pictures
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.index.refresh import replace_vocabulary
from unprompt.index.text_cache import TextCache
from unprompt.index.vocabulary import FORMS, PLAIN, Stored, Vocabulary
from unprompt.index.writer import LibraryWriter
from unprompt.types import Encoder, Fragment

_TEXTS_A_CALL = 2048
_Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class VocabularyReport:
    """What adding fragments did.

    Attributes:
        added: fragments that the vocabulary did not have.
        restored: fragments that were soft-deleted and are back.
        encoded: texts that went through the encoder.
        cached: texts whose embeddings this machine had kept from before.
    """

    added: int
    restored: int
    encoded: int
    cached: int


def add_fragments(
    path: Path | str,
    fragments: Sequence[Fragment],
    encoder: Encoder,
    progress: Callable[[int], object] | None = None,
    *,
    forms: Mapping[str, Sequence[str]] = FORMS,
    cache: TextCache | None = None,
) -> VocabularyReport:
    """Adds fragments to a library's vocabulary, and calibrates them when the library has pictures enough.

    A text that the vocabulary has under any kind is not encoded again, nor is one that `cache` holds. What is encoded
    is kept there as it comes, so a run that is killed loses at most one call of the encoder.

    Args:
        path: the library's folder.
        fragments: what to add; one whose text, kind and namespace are there already is left as it is, or brought back
            when it was deleted.
        encoder: must be the library's own.
        progress: called with the number of terms dealt with since the last call, `count_terms` in all.
        forms: kind -> how its fragments stand in prompts, each with one ``{}``; other kinds stand as they are.
        cache: embeddings of this encoder; by default the user's own.

    Raises:
        LibraryError: the library is locked or of another encoder, or a form has no ``{}``.
        OSError: the disk is full; the library is as it was.
    """
    _check_forms(forms)
    with _open(path, encoder) as (writer, vocabulary):
        stored = vocabulary.stored()
        known = {_identity(each.fragment): row for row, each in enumerate(stored)}
        wanted = {_identity(fragment): fragment for fragment in reversed(fragments)}
        back = {known[identity] for identity in wanted if identity in known and stored[known[identity]].deleted}
        new = [
            Stored(fragment, tuple(forms.get(fragment.kind, PLAIN)))
            for identity, fragment in reversed(wanted.items())
            if identity not in known
        ]
        stored = [replace(each, deleted=False) if row in back else each for row, each in enumerate(stored)]
        cache = cache or TextCache(encoder, writer.dtype)
        old = vocabulary.embeddings.astype(writer.dtype, copy=False)
        terms = [term for each in new for term in each.terms]
        there = dict(zip(vocabulary.terms, old, strict=True))
        absent = sorted({term for term in terms if term not in there}, key=lambda term: (len(term), term))
        if progress:
            progress(count_terms(fragments, forms) - len(absent))
        fresh, encoded = embed_texts(absent, encoder, cache, progress)
        there.update(zip(absent, fresh, strict=True))
        embeddings = np.array([there[term] for term in terms], dtype=old.dtype).reshape(-1, encoder.dim)
        if new or back:
            calibration = vocabulary.calibration.extend(embeddings) if vocabulary.calibration is not None else None
            replaced = Vocabulary.from_stored([*stored, *new], np.concatenate([old, embeddings]), calibration)
            if calibration is None:
                fit(replaced, reference_pictures(Library(writer.root, _previous(writer))), MIN_REFERENCE)
            replace_vocabulary(writer, replaced)
        return VocabularyReport(len(new), len(back), encoded, len(absent) - encoded)


def count_terms(fragments: Sequence[Fragment], forms: Mapping[str, Sequence[str]] = FORMS) -> int:
    """How many terms fragments are rendered as, which is what `add_fragments` reports its progress in."""
    return sum(len(forms.get(fragment.kind, PLAIN)) for fragment in fragments)


def remove_fragments(
    path: Path | str,
    texts: Collection[str] = (),
    kinds: Collection[str] = (),
    namespaces: Collection[str] = (),
    *,
    purge: bool = False,
) -> int:
    """Takes fragments out of every answer: those that match all of what is given. Returns how many.

    They stay in the library, so that `restore_fragments` and adding them again cost nothing; with `purge`, they and
    the deleted ones that match are gone for good.

    Args:
        path: the library's folder.
        texts: fragments by their text, or by a term they are rendered as.
        kinds: any of these kinds.
        namespaces: any of these namespaces.
        purge: see above.

    Raises:
        LibraryError: the library is locked, or nothing matches.
    """
    with _open(path) as (writer, vocabulary):
        stored = vocabulary.stored()
        matching = [
            row
            for row, each in enumerate(stored)
            if (purge or not each.deleted) and _matches(each, texts, kinds, namespaces)
        ]
        _require(matching, path, texts, kinds, namespaces, "fragment")
        if purge:
            kept = np.setdiff1d(np.arange(len(stored)), matching)
            rows = np.flatnonzero(np.isin(vocabulary.fragment_rows, kept))
            calibration = vocabulary.calibration.take(rows) if vocabulary.calibration is not None else None
            remaining = [stored[row] for row in kept]
            replace_vocabulary(writer, Vocabulary.from_stored(remaining, vocabulary.embeddings[rows], calibration))
        else:
            _mark(writer, vocabulary, stored, set(matching), deleted=True)
        return len(matching)


def restore_fragments(
    path: Path | str,
    texts: Collection[str] = (),
    kinds: Collection[str] = (),
    namespaces: Collection[str] = (),
) -> int:
    """Brings back fragments that `remove_fragments` took out; see there. Returns how many.

    Raises:
        LibraryError: the library is locked, or nothing that was removed matches.
    """
    with _open(path) as (writer, vocabulary):
        stored = vocabulary.stored()
        matching = [row for row, each in enumerate(stored) if each.deleted and _matches(each, texts, kinds, namespaces)]
        _require(matching, path, texts, kinds, namespaces, "removed fragment")
        _mark(writer, vocabulary, stored, set(matching), deleted=False)
        return len(matching)


def calibrate_vocabulary(path: Path | str, reference: _Array | None = None) -> int:
    """Calibrates a library's vocabulary anew; see `unprompt.index.calibration`.

    Args:
        path: the library's folder.
        reference: (R, D) embedded pictures; by default a sample of the library's own.

    Returns:
        R, how many pictures it was calibrated on.

    Raises:
        LibraryError: the library is locked, or there are fewer than 2 pictures.
    """
    with _open(path) as (writer, vocabulary):
        if reference is None:
            reference = reference_pictures(Library(writer.root, _previous(writer)))
        if not fit(vocabulary, reference, 2):
            raise LibraryError(f"{path} has {len(reference)} pictures to calibrate on; it takes 2, better 1,000")
        replace_vocabulary(writer, vocabulary)
        return len(reference)


@contextmanager
def _open(path: Path | str, encoder: Encoder | None = None) -> Iterator[tuple[LibraryWriter, Vocabulary]]:
    with LibraryWriter(path, encoder_info(encoder) if encoder is not None else None) as writer:
        yield writer, Library(writer.root, _previous(writer)).vocabulary


def _previous(writer: LibraryWriter) -> Any:
    if writer.previous is None:
        raise LibraryError(f"{writer.root} is not finished; run its build again first")
    return writer.previous


def _mark(
    writer: LibraryWriter, vocabulary: Vocabulary, stored: Sequence[Stored], rows: Collection[int], *, deleted: bool
) -> None:
    marked = [replace(each, deleted=deleted) if row in rows else each for row, each in enumerate(stored)]
    replace_vocabulary(writer, Vocabulary.from_stored(marked, vocabulary.embeddings, vocabulary.calibration))


def _identity(fragment: Fragment) -> tuple[str, str, str]:
    return fragment.text, fragment.kind, fragment.namespace


def _matches(each: Stored, texts: Collection[str], kinds: Collection[str], namespaces: Collection[str]) -> bool:
    return (
        (not texts or each.fragment.text in texts or any(term in texts for term in each.terms))
        and (not kinds or each.fragment.kind in kinds)
        and (not namespaces or each.fragment.namespace in namespaces)
    )


def _require(
    matching: Sequence[int],
    path: Path | str,
    texts: Collection[str],
    kinds: Collection[str],
    namespaces: Collection[str],
    what: str,
) -> None:
    if not matching:
        wanted = ", ".join(map(repr, [*sorted(texts), *sorted(kinds), *sorted(namespaces)]))
        raise LibraryError(f"the vocabulary of {path} has no {what} that matches {wanted}; see vocabulary list")


def _check_forms(forms: Mapping[str, Sequence[str]]) -> None:
    for kind, own in forms.items():
        for form in own:
            if form.count("{}") != 1:
                raise LibraryError(f"the form {form!r} of kind {kind!r} needs one {{}} where the text stands")
        if not own:
            raise LibraryError(f"kind {kind!r} has no form; give one, such as {{}}")


def embed_texts(
    texts: Sequence[str], encoder: Encoder, cache: TextCache, progress: Callable[[int], object] | None
) -> tuple[_Array, int]:
    """Embeds texts that are ordered by length; also returns how many of them the cache did not have."""
    found, embeddings = cache.take(texts)
    # Neighbours are of like length, so a batch pads little.
    rows = np.flatnonzero(~found)
    if progress:
        progress(len(texts) - len(rows))
    for start in range(0, len(rows), _TEXTS_A_CALL):
        part = rows[start : start + _TEXTS_A_CALL]
        embeddings[part] = encoder.encode_texts([texts[row] for row in part])
        cache.put([texts[row] for row in part], embeddings[part])
        if progress:
            progress(len(part))
    cache.compact()
    return embeddings, len(rows)
