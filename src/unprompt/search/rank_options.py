"""What a ranking of fragments may hold and how it is ordered, and the terms of a vocabulary that it allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import QueryError

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

ORDERS = ("cosine", "percentile")


@dataclass(frozen=True)
class RankOptions:
    """Which fragments are ranked, and how.

    Attributes:
        kinds: only these kinds; None for all.
        exclude_kinds: none of these.
        namespaces: only these namespaces; None for all.
        include_terms: only terms that one of these names; empty for all. A name is a term's or fragment's whole text,
            whatever its case, or a pattern with ``*`` and ``?``, such as "*artstation*".
        exclude_terms: no term that one of these names.
        min_score: the least cosine, in [-1, 1].
        min_percentile: the least percentile, in [0, 1]; needs a calibrated vocabulary.
        order: "cosine", or "percentile", by which terms of different kinds compare fairly; needs a calibrated
            vocabulary.
        collapse: leave out near-duplicates of better terms: those of the same words, of the same fragment, or whose
            embeddings have a cosine of at least this, in (0, 1]; None to keep them.
        diversity: MMR's lambda in [0, 1]: 1 ranks by the score alone, 0 by difference from what is ranked above;
            None is off.

    Raises:
        QueryError: a value is out of its range.
    """

    kinds: tuple[str, ...] | None = None
    exclude_kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] | None = None
    include_terms: tuple[str, ...] = ()
    exclude_terms: tuple[str, ...] = ()
    min_score: float | None = None
    min_percentile: float | None = None
    order: str = "cosine"
    collapse: float | None = None
    diversity: float | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise QueryError(f"unknown order {self.order!r}: use one of {', '.join(ORDERS)}")
        for name, low in (("min_score", -1.0), ("min_percentile", 0.0), ("collapse", 0.0), ("diversity", 0.0)):
            value = getattr(self, name)
            if value is not None and not low <= value <= 1.0:
                raise QueryError(f"{name} is {value}, use a number from {low:g} to 1")

    @property
    def needs_calibration(self) -> bool:
        return self.order == "percentile" or self.min_percentile is not None


def allowed_terms(vocabulary: Vocabulary, options: RankOptions) -> NDArray[np.bool_]:
    """(T,) True for live terms, not blank, of the kinds, namespaces and names that the options allow.

    Raises:
        QueryError: a kind or namespace is not in the vocabulary.
    """
    vocabulary.check_kinds([*(options.kinds or ()), *options.exclude_kinds])
    # A blank term, such as clip-interrogator's lists hold, says nothing and yet is somewhere in the space.
    named = np.fromiter(map(bool, map(str.strip, vocabulary.terms)), bool, len(vocabulary.live))
    allowed: NDArray[np.bool_] = vocabulary.live & named
    for kind, (start, stop) in vocabulary.kind_ranges.items():
        if kind in options.exclude_kinds or (options.kinds is not None and kind not in options.kinds):
            allowed[start:stop] = False
    if options.namespaces is not None:
        allowed &= _in_namespaces(vocabulary, options.namespaces)
    if options.include_terms:
        allowed &= _named(vocabulary, options.include_terms)
    if options.exclude_terms:
        allowed &= ~_named(vocabulary, options.exclude_terms)
    return allowed


def _in_namespaces(vocabulary: Vocabulary, namespaces: Sequence[str]) -> NDArray[np.bool_]:
    unknown = [name for name in namespaces if name not in vocabulary.namespaces]
    if unknown:
        known = ", ".join(vocabulary.namespaces) or "none: the vocabulary is empty"
        raise QueryError(f"no fragments of namespace {unknown[0]!r} in this library; known namespaces: {known}")
    terms = range(len(vocabulary.terms))
    return np.fromiter((vocabulary.fragment(row).namespace in namespaces for row in terms), bool, len(terms))


def _named(vocabulary: Vocabulary, names: Sequence[str]) -> NDArray[np.bool_]:
    folded = [name.strip().casefold() for name in names]
    exact = {name for name in folded if not _is_glob(name)}
    patterns = [_glob(name) for name in folded if _is_glob(name)]
    matches = re.compile("|".join(patterns) or r"(?!)", re.DOTALL).fullmatch
    found = np.zeros(len(vocabulary.terms), dtype=bool)
    for row, term in enumerate(vocabulary.terms):
        for text in dict.fromkeys((term.casefold(), vocabulary.fragment(row).text.casefold())):
            found[row] |= text in exact or matches(text) is not None
    return found


def _is_glob(name: str) -> bool:
    return "*" in name or "?" in name


def _glob(name: str) -> str:
    # Not fnmatch: there a term's own square brackets would be a set of characters.
    return "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in name)
