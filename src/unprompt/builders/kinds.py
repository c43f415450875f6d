"""Guessing what kind of fragment a text is, from known fragments first and from its words otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from unprompt.pictures.modifiers import fold, guess_modifier
from unprompt.pictures.names import bare_artist, is_person_like, name_key
from unprompt.types import Fragment

KINDS = ("artist", "medium", "movement", "flavor", "trending", "negative")
_SPECIFIC = ("artist", "medium", "movement", "trending", "negative")
"""Kinds that say more than "flavor", most telling first: a text that two lists hold is of the first of these."""

_ARTICLE = re.compile(r"^(?:an?|the) ")


class KindGuesser:
    """Guesses kinds with a vocabulary's fragments as knowledge.

    A text of the vocabulary has the vocabulary's kind, though clip-interrogator's flavors, which hold everything, are
    overruled. Other texts are judged by their words (`guess_modifier`); what is neither is a "flavor".

    Args:
        known: fragments whose kinds are right.
    """

    def __init__(self, known: Iterable[Fragment] = ()) -> None:
        self._kinds: dict[str, str] = {}
        self.artists: set[str] = set()
        rank = {kind: i for i, kind in enumerate(_SPECIFIC)}
        for fragment in known:
            if fragment.kind == "artist":
                self.artists.add(name_key(bare_artist(fragment.text)))
            elif fragment.kind != "flavor":
                key = kind_key(fragment.text)
                if rank.get(fragment.kind, 9) < rank.get(self._kinds.get(key, ""), 10):
                    self._kinds[key] = fragment.kind
        self.artists.discard("")

    def guess(self, text: str, *, credited: bool = False, person: bool = False) -> str:
        """Returns the likeliest kind of a text.

        Args:
            text: the fragment.
            credited: it stood behind "by" or its like.
            person: a bare name of a person is an artist here, as it is behind a picture's description.
        """
        if credited or name_key(bare_artist(text)) in self.artists:
            return "artist"
        if kind := self._kinds.get(kind_key(text)):
            return kind
        if kind := guess_modifier(text):
            return kind
        return "artist" if person and is_person_like(text) else "flavor"


def kind_key(text: str) -> str:
    """Folds a text so that "An oil-painting" and "oil painting" meet."""
    return _ARTICLE.sub("", fold(text).replace("-", " "))


def confusion(guesser: KindGuesser, truth: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Counts (true kind, guessed kind) over texts whose kind is known."""
    counts: dict[tuple[str, str], int] = {}
    for text, kind in truth.items():
        pair = (kind, guesser.guess(text, person=True))
        counts[pair] = counts.get(pair, 0) + 1
    return counts
