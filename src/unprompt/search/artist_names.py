"""The artists that a vocabulary lists, found by name wherever a text mentions them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unprompt.pictures.names import NEVER, bare_artist, is_common_word, is_person_like, name_key

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

ARTIST = "artist"

FLAVOR = "flavor"
"""The kind of terms that nobody has sorted; many are names of artists that no list has, or spell a listed one wrong."""

# Letters that Unicode does not take apart into a plain one and an accent.
_PLAIN = str.maketrans(
    {"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "œ": "oe", "Œ": "Oe", "æ": "ae", "Æ": "Ae", "ß": "ss"}
)

EVERYDAY_TOKENS = 20_000
"""CLIP's tokens were merged in order of how often captions hold them. Among the first so many are hope, rose, king,
artist and constant, which are somebody's name as well; picasso, monet, dali and warhol come later, most names never."""

MOST_WORDS = 4
"""Of a name that another is known by."""

_CREDIT = re.compile(r"\b(?:by|styles? of|art of|works? of|influenced by|a la)$")
_STYLE = re.compile(r"(?:style|styled|esque)\b")


def word_key(text: str) -> str:
    """`name_key`, with "zdzisław" and "zdzislaw", "mœbius" and "moebius" alike."""
    return name_key(text if text.isascii() else text.translate(_PLAIN))


@dataclass(frozen=True)
class Mention:
    """A listed name in a text: words ``start`` to ``stop`` (exclusive) of its `word_key`."""

    start: int
    stop: int
    key: str


@dataclass(frozen=True)
class ArtistNames:
    """Names by the words that they begin with, so that a text is looked through once.

    A name of several words counts wherever the words stand in one run, whatever case, accents and punctuation. A name
    of one word counts likewise if the word is a name and nothing else. If it is an everyday word as well ("Hope",
    "Rose") it counts only where it is credited: "by Hope", "in the style of Hope", "Hope style".

    Attributes:
        keys: the keys (`word_key`) of all names.
        dead: the keys of those who are known to have died.
        everyday: the keys that are everyday words as well.
        ends: the first and last words of the names of several words, less everyday ones.
    """

    keys: frozenset[str]
    dead: frozenset[str] = frozenset()
    everyday: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()
    _longest: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.keys:
            words = key.split()
            self._longest[words[0]] = max(len(words), self._longest.get(words[0], 0))

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> ArtistNames:
        """The artists of a vocabulary, deleted ones as well: deleting a name does not make it welcome."""
        artists = [*vocabulary.fragments(ARTIST), *vocabulary.fragments(ARTIST, deleted=True)]
        keyed = [(word_key(bare_artist(artist.text)), artist.died > 0) for artist in artists]
        keys = frozenset(key for key, _ in keyed if key)
        names = [key.split() for key in keys]
        ends = frozenset(words[at] for words in names if 1 < len(words) <= MOST_WORDS for at in (0, -1))
        dead = frozenset(key for key, died in keyed if key and died)
        return cls(keys, dead, _everyday(keys), ends - _everyday(ends))

    def mentions(self, text: str) -> list[Mention]:
        """The names in a text, from left to right, the longest where several begin; none overlap."""
        words = word_key(text).split()
        found: list[Mention] = []
        stop = 0
        for at, word in enumerate(words):
            longest = self._longest.get(word, 0)
            if longest and at >= stop and (end := self._end(words, at, longest)):
                found.append(Mention(at, end, " ".join(words[at:end])))
                stop = end
        return found

    def reads_as_name(self, text: str) -> bool:
        """Whether a text is like the name of a person, listed or not, from its first word to its last.

        It begins with a common given name ("stanley kubrick"), or begins or ends like a listed name ("lucien freud",
        "grteg rutkowski"), and has no everyday word. An artist's name and an actor's are not told apart.
        """
        key = word_key(text)
        words = key.split()
        if is_person_like(key):
            return True
        if not 1 < len(words) <= MOST_WORDS or self.ends.isdisjoint((words[0], words[-1])):
            return False
        plain = all(len(word) > 1 and word.isalpha() for word in words)
        return plain and not any(word in NEVER or is_common_word(word) for word in words)

    def _end(self, words: Sequence[str], at: int, longest: int) -> int:
        """Where the longest name that begins at a word ends; 0 when none begins."""
        for stop in range(min(at + longest, len(words)), at, -1):
            key = " ".join(words[at:stop])
            if key in self.keys and (key not in self.everyday or _credited(words, at, stop)):
                return stop
        return 0


def word_runs(words: Sequence[str], runs: Collection[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Where any of the runs of words stand among words: (start, stop), from left to right."""
    return [
        (at, at + len(run))
        for at in range(len(words))
        for run in runs
        if run and tuple(words[at : at + len(run)]) == run
    ]


def _credited(words: Sequence[str], start: int, stop: int) -> bool:
    before, after = " ".join(words[max(0, start - 3) : start]), " ".join(words[stop : stop + 1])
    return bool(_CREDIT.search(before) or _STYLE.match(after))


def _everyday(keys: Iterable[str]) -> frozenset[str]:
    from unprompt.encoders.clip_tokens import clip_token_ids

    single = sorted(key for key in keys if " " not in key)
    tokens = clip_token_ids(single) if single else []
    return frozenset(
        key
        for key, ids in zip(single, tokens, strict=True)
        if is_common_word(key) or (len(ids) == 1 and ids[0] < EVERYDAY_TOKENS)
    )
