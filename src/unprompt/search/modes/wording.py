"""Which ranked terms are worth saying beside others: no scraps of other prompts, nothing that was said already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from unprompt.search.words import append, plain_words

if TYPE_CHECKING:
    from unprompt.search.modes.common import ComposeInput
    from unprompt.search.results import ScoredFragment

_SCRAPS = re.compile(
    r"""
    [\[\]{}<>|*^=#:\\，；：]    # syntax of a prompt box, its weights too, and punctuation in full width
    | \(\s*\( | \(\s | \s\)  # brackets for emphasis
    | \s[;.,!?](\s|$)        # punctuation by itself
    | [!?]{2} | ["”“]
    | \w{3}[.!?]\s           # two sentences; initials are shorter
    | ^[^\w('&]              # begins with punctuation
    | [;,(/&-]$              # goes on somewhere else, and so does what ends with these words
    | \b(a|an|and|by|for|from|of|the|to|with)$
    """,
    re.VERBOSE | re.IGNORECASE,
)

_LITTLE = frozenset({"and", "as", "at", "for", "from", "in", "inspired", "is", "of", "on", "style", "to", "with"})


def reads_on(task: ComposeInput) -> bool:
    """Whether prompts are to read well, and not to be nearest alone: asked for by collapsing near-duplicates."""
    return task.ranker.options.collapse is not None


@lru_cache(maxsize=1 << 18)
def is_scrap(text: str) -> bool:
    """Whether a term was torn from a longer prompt: weights, half a bracket, punctuation that belongs to nothing.

    Example:
        >>> [is_scrap(text) for text in ("facial features )", "unreal engine: .2", "an illustration of", "f / 2.8")]
        [True, True, True, False]
    """
    return bool(_SCRAPS.search(text)) or text.count("(") != text.count(")")


def new_words(
    prompt: str, ranked: Iterable[ScoredFragment], count: int, fresh: float | None = None
) -> Iterator[ScoredFragment]:
    """The first `count` terms whose words do not stand in one run in the prompt and those taken before.

    Args:
        prompt: what is said already.
        ranked: terms, best first.
        count: the most that are taken.
        fresh: the share of a term's words that must be new, in [0, 1], little words apart; scraps are passed over
            then as well, but not names of artists. None asks for neither.
    """
    for each in ranked:
        if not count:
            return
        if plain_words(each.text) not in plain_words(prompt) and (fresh is None or _says_more(prompt, each, fresh)):
            prompt = append(prompt, each.text)
            count -= 1
            yield each


def _says_more(prompt: str, term: ScoredFragment, fresh: float) -> bool:
    if term.fragment.kind != "artist" and is_scrap(term.text):
        return False
    said = set(plain_words(prompt).split())
    words = plain_words(term.text).split()
    words = [word for word in words if word not in _LITTLE] or words
    return sum(word not in said for word in words) >= fresh * len(words)
