"""Mining a corpus of prompts for fragments that a vocabulary lacks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from unprompt.builders.kinds import KINDS, KindGuesser, kind_key
from unprompt.index.library import Library
from unprompt.pictures.names import bare_artist, name_key
from unprompt.pictures.split import tagged_fragments
from unprompt.types import Fragment

log = logging.getLogger(__name__)

MAX_WORDS = 8
"""Longest fragment that is counted, in words; longer ones describe one picture."""

_MAX_GROUPS = 1_000_000
"""How many different fragments are counted at once: about 400 bytes each, their example prompts included."""

_MAX_SPELLINGS = 8
_ROWS_A_READ = 4096


@dataclass(frozen=True, slots=True)
class Proposal:
    """A fragment that a vocabulary may want.

    Attributes:
        kind: the guess, one of `unprompt.builders.kinds.KINDS`, or a user's own that the vocabulary has.
        text: its commonest spelling; of an artist the bare name.
        count: how many prompts hold it, repeated prompts counted as often as they were seen.
        example: the first prompt that holds it.
    """

    kind: str
    text: str
    count: int
    example: str


@dataclass(slots=True)
class _Group:
    """The spellings of one fragment, and where it was seen."""

    example: str
    count: int = 0
    floor: int = 0  # what it may have counted before it was dropped, and came again
    credited: int = 0
    leading: int = 0
    spellings: Counter[str] = field(default_factory=Counter)

    def add(self, text: str, count: int, credited: bool, leading: bool) -> None:
        self.count += count
        self.credited += count * credited
        self.leading += count * leading
        if text in self.spellings or len(self.spellings) < _MAX_SPELLINGS:
            self.spellings[text] += count

    @property
    def text(self) -> str:
        return min(self.spellings, key=lambda text: (-self.spellings[text], text))


class FragmentCounter:
    """Counts the fragments of prompts in bounded memory.

    Up to `max_groups` different fragments the counts are exact. Beyond, the rarest are dropped again and again, by
    lossy counting (Manku and Motwani, 2002): a count may then be too low by `error` at most.

    Args:
        artists: keys of known names, for the splitter.
        max_groups: how many different fragments to hold.
    """

    def __init__(self, artists: Iterable[str] = (), max_groups: int = _MAX_GROUPS) -> None:
        self._artists = frozenset(artists)
        self._max_groups = max_groups
        self._groups: dict[str, _Group] = {}
        self.prompts = 0
        self.error = 0

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, prompt: str, count: int = 1) -> None:
        """Counts the fragments of a prompt that was seen `count` times, each once a prompt."""
        self.prompts += count
        seen: set[str] = set()
        for at, (fragment, credited) in enumerate(tagged_fragments(prompt, self._artists)):
            if fragment.count(" ") >= MAX_WORDS:
                continue
            text = bare_artist(fragment) if credited else fragment
            key = fragment_key(text)
            if not key or key in seen:
                continue
            seen.add(key)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(prompt, floor=self.error)
            group.add(text, count, credited, at == 0)
        while len(self._groups) > self._max_groups:
            self._drop_rarest()

    def groups(self) -> Iterator[tuple[str, _Group]]:
        """The key and group of each fragment, commonest first, equals by key."""
        yield from sorted(self._groups.items(), key=lambda item: (-item[1].count, item[0]))

    def _drop_rarest(self) -> None:
        before = len(self._groups)
        while len(self._groups) > self._max_groups * 3 // 4:
            limit = min(group.count + group.floor for group in self._groups.values())
            self._groups = {k: group for k, group in self._groups.items() if group.count + group.floor > limit}
            self.error = max(self.error, limit)
        log.info("%d rare fragments dropped; counts may be too low by %d", before - len(self._groups), self.error)


@lru_cache(maxsize=1 << 16)
def fragment_key(text: str) -> str:
    """What the spellings of a fragment share: case, accents, articles, punctuation and blanks around it are folded."""
    return name_key(kind_key(text)) or kind_key(text)


def mine(
    prompts: Iterable[tuple[str, int]],
    known: Sequence[Fragment] = (),
    *,
    min_count: int = 5,
    kinds: Sequence[str] = (),
    limit: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Proposal]:
    """Proposes the fragments of prompts that a vocabulary lacks.

    Args:
        prompts: distinct prompts and how often each was seen.
        known: the vocabulary: its texts are not proposed whatever their kind, and help to guess kinds.
        min_count: how many prompts must hold a fragment, at least 1.
        kinds: propose only these; all when empty.
        limit: the most proposals, commonest first; all when None.
        progress: called with the number of prompts dealt with since the last call.

    Returns:
        Proposals, commonest first; equal counts by key.
    """
    guesser = KindGuesser(known)
    counter = FragmentCounter(guesser.artists)
    for prompt, count in prompts:
        counter.add(prompt, count)
        if progress:
            progress(1)
    there = {fragment_key.__wrapped__(bare_artist(f.text) if f.kind == "artist" else f.text) for f in known}
    found: list[Proposal] = []
    for key, group in counter.groups():
        if group.count < min_count or (limit is not None and len(found) >= limit):
            break
        if key in there:
            continue
        kind = _kind(group, guesser)
        if not kinds or kind in kinds:
            found.append(Proposal(kind, group.text, group.count, group.example))
    return found


def library_prompts(library: Library) -> Iterator[tuple[str, int]]:
    """The distinct prompts of a library with their counts, a few thousand at a time."""
    total = library.manifest.counts.get("prompts", 0)
    for start in range(0, total, _ROWS_A_READ):
        yield from library.prompts(range(start, min(start + _ROWS_A_READ, total)))


def _kind(group: _Group, guesser: KindGuesser) -> str:
    """The guess for a fragment: an artist where a fair part of its prompts say so."""
    kind = guesser.guess(group.text, person=group.leading * 2 < group.count)
    if kind == "flavor" and group.credited > 0 and group.credited * 5 >= group.count:
        return "artist"
    return kind


__all__ = ["KINDS", "FragmentCounter", "Proposal", "fragment_key", "library_prompts", "mine"]
