"""Policies: what may be in no prompt, and what must be in every one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import QueryError
from unprompt.pictures.names import bare_artist
from unprompt.pictures.split import tagged_fragments
from unprompt.search.artist_names import ARTIST, FLAVOR, ArtistNames, Mention, word_key, word_runs

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

ARTISTS = ("any", "none", "dead")
SEPARATOR = ", "

_MAY_CREDIT = re.compile(r"\bby\b|\bstyles? of\b", re.IGNORECASE)
_GOES_ON = re.compile(r"(?:of|with|in|on|at|from|for|as|and)\b")
_JOINTS = frozenset(
    ("of", "with", "by", "and", "from", "like", "as", "in", "on", "at", "to", "near", "for", "the", "a", "an")
)
_NO_NAMES = ArtistNames(frozenset())


@dataclass(frozen=True)
class Policy:
    """What prompts may not say, and what stands around them.

    Attributes:
        artists: "any"; "none", which hides the kind artist, every other term that names a listed artist (`ArtistNames`
            says when one does) or credits anybody, flavors that read like somebody's name, and takes the same out of
            prompts; or "dead", which spares artists that are known to have died. Those of unknown dates count as alive.
        forbid: words and runs of words that no term and no prompt may hold, whatever their case, accents and
            punctuation.
        prefix: what every prompt begins with, such as a LoRA's trigger words.
        suffix: what every prompt ends with, such as "<lora:name:1>".

    Raises:
        QueryError: `artists` is none of these, or a forbidden word has no letter or digit.
    """

    artists: str = "any"
    forbid: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.artists not in ARTISTS:
            raise QueryError(f"unknown artists policy {self.artists!r}: use one of {', '.join(ARTISTS)}")
        for word in self.forbid:
            if not word_key(word):
                raise QueryError(f"the forbidden word {word!r} has no letter or digit: leave it out")

    def mask(self, vocabulary: Vocabulary) -> NDArray[np.bool_]:
        """(T,) False for the terms that the policy hides."""
        terms = vocabulary.terms
        allowed = np.ones(len(terms), dtype=bool)
        if not self._restricts:
            return allowed
        names = self.names(vocabulary)
        start, stop = vocabulary.kind_ranges.get(ARTIST, (0, 0))
        flavors = range(*vocabulary.kind_ranges.get(FLAVOR, (0, 0)))
        for row, term in enumerate(terms):
            if self._forbidden(term):
                allowed[row] = False
            elif start <= row < stop:
                died = self.artists == "dead" and vocabulary.fragment(row).died > 0
                allowed[row] = self.artists == "any" or died
            else:
                allowed[row] = self._artists_allow(term, names) and not (row in flavors and self._unlisted(term, names))
        return allowed

    def names(self, vocabulary: Vocabulary) -> ArtistNames:
        """The vocabulary's artists, for `clean`; none where this policy has no use for them."""
        return _NO_NAMES if self.artists == "any" else ArtistNames.of(vocabulary)

    def clean(self, prompt: str, names: ArtistNames | None = None) -> str:
        """A prompt without what the policy forbids.

        Credits ("art by X and Y", "in the style of X") go and leave what they belonged to. Another fragment that holds
        a forbidden word or a listed name, or reads like somebody's name, goes whole, but for the first one, which says
        what is shown: it loses forbidden words and listed names alone. A prompt with nothing to take out is returned as
        it is; of another one the fragments are joined by commas and lose their weights and tags.

        Args:
            prompt: any text.
            names: the artists that are listed, from `names`; without them only credits are found.
        """
        names = names or _NO_NAMES
        if not self._restricts or not prompt.strip():
            return prompt
        kept: list[str] = []
        changed = cut = False
        for position, (text, credit) in enumerate(tagged_fragments(prompt, names.keys)):
            if credit and self.artists != "any":
                rest = text if self._spares(bare_artist(text), names) and not self._forbidden(text) else ""
            else:
                rest = self._without(text, names, first=position == 0)
            changed |= rest != text
            if rest and cut and kept and _GOES_ON.match(rest):
                kept[-1] += f" {rest}"  # "a painting by X of a cat"
            elif rest:
                kept.append(rest)
            cut = credit and not rest
        return SEPARATOR.join(kept) if changed else prompt

    def finish(self, prompt: str) -> str:
        """The prompt between prefix and suffix, which are not said twice where it has them already."""
        prompt, prefix, suffix = prompt.strip(), self.prefix.strip(), self.suffix.strip()
        if prefix and prompt != prefix and not prompt.startswith(prefix + SEPARATOR):
            prompt = SEPARATOR.join(filter(None, (prefix, prompt)))
        if suffix and prompt != suffix and not prompt.endswith(SEPARATOR + suffix):
            prompt = SEPARATOR.join(filter(None, (prompt, suffix)))
        return prompt

    @property
    def _restricts(self) -> bool:
        return self.artists != "any" or bool(self.forbid)

    @cached_property
    def _runs(self) -> frozenset[tuple[str, ...]]:
        return frozenset(tuple(word_key(word).split()) for word in self.forbid)

    def _forbidden(self, text: str) -> bool:
        return bool(self._runs) and bool(word_runs(word_key(text).split(), self._runs))

    def _artists_allow(self, text: str, names: ArtistNames) -> bool:
        if self.artists == "any":
            return True
        if not all(self._alright(mention, names) for mention in names.mentions(text)):
            return False
        if not _MAY_CREDIT.search(text):
            return True
        tagged = tagged_fragments(text, names.keys)
        return all(self._spares(bare_artist(part), names) for part, credit in tagged if credit)

    def _unlisted(self, text: str, names: ArtistNames) -> bool:
        """Whether a text may be the name of an artist that no list has."""
        return self.artists != "any" and names.reads_as_name(text) and not names.mentions(text)

    def _alright(self, mention: Mention, names: ArtistNames) -> bool:
        return self.artists == "dead" and mention.key in names.dead

    def _spares(self, artist: str, names: ArtistNames) -> bool:
        """Whether an artist who is credited may be."""
        return self.artists == "dead" and word_key(artist) in names.dead

    def _without(self, text: str, names: ArtistNames, first: bool) -> str:
        """A fragment without what is forbidden in it: "" where that is anything, unless it is the first."""
        keys = word_key(text).split()
        runs = word_runs(keys, self._runs)
        if self.artists != "any":
            runs += [(m.start, m.stop) for m in names.mentions(text) if not self._alright(m, names)]
        if not runs:
            return "" if not first and self._unlisted(text, names) else text
        return _cut_out(text.split(), keys, runs) if first else ""


def _cut_out(words: Sequence[str], keys: Sequence[str], runs: Sequence[tuple[int, int]]) -> str:
    """Words without those that runs of their text's keys stand for, and what joined these to the rest.

    Several words may share a key ("h. r." is "hr"), and one word may have several; their letters are the same.
    """
    ends = [0, *accumulate(map(len, keys))]
    gone = {at for start, stop in runs for at in range(ends[start], ends[stop])}
    left: list[str] = []
    at, gap = 0, False
    for word in words:
        own = word_key(word).replace(" ", "")
        if gone.intersection(range(at, at + len(own))):
            gap = True
        elif own or not gap:
            if gap and own in _JOINTS:
                _drop_joints(left)
            left.append(word)
            gap = False
        at += len(own)
    if gap:
        _drop_joints(left)
    return " ".join(left)


def _drop_joints(words: list[str]) -> None:
    """Takes off the end what joined something that is gone: "portrait of"."""
    while words and word_key(words[-1]) in _JOINTS:
        words.pop()
