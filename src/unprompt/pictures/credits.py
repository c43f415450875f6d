"""Who made it: the artists that fragments of a prompt name, one fragment each.

Prompts name artists without marking where a name ends ("by greg rutkowski highly detailed"), mostly in lower case, and
use "by" for places too ("a man by the sea"). A name ends at a word that belongs to everyday or prompt language, unless
the name is known, or the word follows a given name ("grant wood").
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from unprompt.pictures.names import NEVER, PARTICLES, is_common_word, is_given_name, name_key, word_set

_MAX_WORDS = 6
"""Longest name that is looked for, in words."""

_LOOK_AHEAD, _LOOK_BACK = 400, 40
_WORD = re.compile(r"\S+")
_CREDIT = re.compile(
    r"(?<![\w-])(?:(?P<verb>inspired|influenced|painted|drawn|illustrated|photographed|directed|designed|created|sculpted|"
    r"rendered|inked|engraved|etched|sketched|animated|filmed|made|written|shot|taken)\s+)?by\s+(?=\S)"
    r"|(?<![\w-])(?P<style>(?:(?:drawn|painted|made|done)\s+)?(?:(?:in|with|on)\s+)?(?:the\s+|an?\s+)?(?:(?:art|visual)\s*)?"
    r"styles?\s+of\s+)(?=\S)",
    re.IGNORECASE,
)
_BARE_HEADS = {"art", "artwork", "artworks", "arts", "art style", "artstyle", "and", "&", "art and"}
_AND = ("and", "&", "+")
_THINGS = word_set("""
    lighting shading lettering painting drawing rendering engraving etching carving building clothing wedding
    viking gown
""")
"""Nouns that end like what was done by somebody."""

_LOCATING = word_set("""
    lit held led built hung stand stands sit sits parked ridden fed worn close near cut kept  made stood sat swept
    won caught hit divided up down goes passes pass drives flies runs walks
""")
"""What goes before "by" where no artist follows: "lit by", "sat by"."""

_SUFFIX = ["+"]
_SUFFIXES = {"jr", "sr", "ii", "iii", "the elder", "the younger"}
_INITIAL = re.compile(r"(?:[^\W\d_]\.?-?)+\.?|(?:st|jr|sr|dr|mr|mrs|wm|chas|geo)\.?", re.IGNORECASE)


def split_credits(fragments: Sequence[str], artists: Collection[str] = ()) -> list[tuple[str, bool]]:
    """Gives each artist that a prompt's fragments name one of its own: "by A" or, where so written, "inspired by A".

    Args:
        fragments: in the prompt's order, without brackets and weights.
        artists: keys of known names (`name_key`); they may hold "and", and are found without "by" after another artist.

    Returns:
        Fragments in their order, and of each whether it is an artist.
    """
    found: list[tuple[str, bool]] = []
    for at, fragment in enumerate(fragments):
        names = _known_pair(fragment, artists)
        if not names and found and found[-1][1]:
            names = _continued(fragment, fragments[at + 1 : at + 6], artists)
        if names == _SUFFIX:
            found[-1] = (f"{found[-1][0]} {fragment}", True)
        elif names:
            found += [(f"by {name}", True) for name in names]
        else:
            found += _split(fragment, artists)
    return found


def _split(fragment: str, artists: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yields the pieces of a fragment and whether each is an artist."""
    folded = fragment.casefold()
    if "by " not in folded and "style" not in folded:
        yield fragment, False
        return
    start = 0
    for match in _CREDIT.finditer(fragment):
        if match.start() < start:
            continue
        words = [(word[0], word.start(), word.end()) for word in _WORD.finditer(_after(fragment, match.end()))]
        if not _may_credit(fragment[max(start, match.start() - _LOOK_BACK) : match.start()], match, words[0][0]):
            continue
        names, used = _names([word for word, _, _ in words], artists, bool(match["style"]))
        if not names:
            continue
        head = fragment[start : match.start()].strip(" :-")
        if head and head.casefold() not in _BARE_HEADS:
            yield head, False
        verb = match["verb"]
        yield from ((f"{verb} by {name}" if verb else f"by {name}", True) for name in names)
        start = match.end() + words[used - 1][2]
    rest = fragment[start:].strip(" .:;-!")
    if rest:
        yield rest, False


def _after(fragment: str, start: int) -> str:
    """As much of a fragment as is looked at for names, whole words: all of a long one each time would take forever."""
    end = start + _LOOK_AHEAD
    while end < len(fragment) and not fragment[end].isspace():
        end += 1
    return fragment[start:end]


def _may_credit(head: str, match: re.Match[str], following: str) -> bool:
    """Whether what stands before "by" lets a name follow: not "surrounded by", "sitting by", "one by one"."""
    words = head.casefold().split()
    if match["verb"] or match["style"] or not words:
        return True
    last = words[-1]
    participle = last.endswith(("ed", "ing", "wn", "ught")) and len(last) > 4 and last not in _THINGS
    return not (participle or last in _LOCATING or last == following.casefold())


def _names(words: Sequence[str], artists: Collection[str], style: bool) -> tuple[list[str], int]:
    """The names at the start of the words and how many words they, and what joins them, take."""
    names: list[str] = []
    at = used = 0
    while (end := _name_end(words, at, artists)) > at:
        name = " ".join(words[at:end]).strip(' ,.:;!?"')
        if style and not names and not _is_sure([*words[at:end]], artists) and _lower(words[at:end]) and end - at < 2:
            break
        names.append(name)
        at = used = end
        if words[end - 1][-1] in ":;!?":
            break
        if at < len(words) and words[at].casefold() in _AND:
            at += 1 + _repeated_credit(words[at + 1 : at + 3])
        elif _known_end(words, at, artists) == at and not _starts_name(words, at):
            break
    return names, used


def _repeated_credit(words: Sequence[str]) -> int:
    """How many words of "and by", "and art by" follow the "and"."""
    folded = [word.casefold() for word in words]
    return 1 if folded[:1] == ["by"] else 2 if folded == ["art", "by"] else 0


def _lower(words: Sequence[str]) -> bool:
    return all(word.islower() for word in words)


def _name_end(words: Sequence[str], at: int, artists: Collection[str]) -> int:
    """Where the name that starts at a word ends, exclusive; ``at`` when there is none."""
    end = _known_end(words, at, artists)
    if end <= at + 1:
        end = max(end, _likely_end(words, at, artists))
    for length in (1, 2):
        if end > at and _fold(" ".join(words[end : end + length])) in _SUFFIXES:
            return min(end + length, len(words))
    return end


def _likely_end(words: Sequence[str], at: int, artists: Collection[str]) -> int:
    """Where the name that starts at a word ends as far as the words themselves tell."""
    end = at
    while end < len(words) and end - at < _MAX_WORDS and _goes_on(words, at, end):
        if end > at and (_known_end(words, end, artists) > end + 1 or (end > at + 1 and _next_name(words, end))):
            break
        end += 1
        if words[end - 1][-1] in ":;!?" or (words[end - 1][-1] == "." and not _INITIAL.fullmatch(words[end - 1])):
            break
    while end > at + 1 and words[end - 1].casefold() in PARTICLES:
        end -= 1
    return end


def _fold(text: str) -> str:
    return text.casefold().strip(" ,.:;!?")


def _starts_name(words: Sequence[str], at: int) -> bool:
    return at + 1 < len(words) and is_given_name(words[at].casefold()) and _goes_on(words, at, at + 1)


def _next_name(words: Sequence[str], at: int) -> bool:
    """Whether another name starts at a word inside a run of names: a given name after what is none."""
    before = words[at - 1].casefold()
    return _starts_name(words, at) and not is_given_name(before) and before not in PARTICLES and len(before) > 2


def _known_end(words: Sequence[str], at: int, artists: Collection[str]) -> int:
    if artists:
        for end in range(min(len(words), at + _MAX_WORDS), at, -1):
            if name_key(" ".join(words[at:end])) in artists:
                return end
    return at


def _goes_on(words: Sequence[str], at: int, end: int) -> bool:
    """Whether the word at ``end`` may be a part of the name that starts at ``at``."""
    word = words[end].strip(",.:;!?\"'’")
    folded = word.casefold().removesuffix("'s").removesuffix("’s")
    if (
        len(word) == 1
        and words[end][1:2] == "."
        and end + 1 < len(words)
        and not is_common_word(words[end + 1].casefold())
    ):
        return True
    if len(word) == 1 and word.isupper() and (end > at or end + 1 == len(words) or words[end + 1].casefold() in _AND):
        return True
    if end > at and folded in PARTICLES and end + 1 < len(words):
        return (
            folded != "of" and words[end + 1].casefold() not in NEVER and not is_common_word(words[end + 1].casefold())
        )
    if end == at and word.islower() and len(word) > 5 and word.endswith("ing") and not is_given_name(folded):
        return False
    if not word or folded in NEVER or not word[0].isalpha() or any(character.isdigit() for character in word):
        return False
    if not is_common_word(folded):
        return True
    if end == at and is_given_name(folded) and end + 1 < len(words) and _goes_on(words, at, end + 1):
        return True
    if end == at + 1 and is_given_name(words[at].casefold()) and end + 1 == len(words):
        return True
    return word[0].isupper() and not word.isupper() and (end > at or end + 1 < len(words))


def _known_pair(fragment: str, artists: Collection[str]) -> list[str]:
    """The names of a fragment that is nothing but two or more known names; none if it is anything else."""
    if not artists or not (" and " in fragment or " & " in fragment or " + " in fragment):
        return []
    words = fragment.split()
    names, used = _names(words, artists, False)
    known = used == len(words) and len(names) > 1 and all(name_key(name) in artists for name in names)
    return names if known else []


def _continued(fragment: str, following: Sequence[str], artists: Collection[str]) -> list[str]:
    """The artists of a fragment that goes on with a list of artists, "B" or "B and C" after "by A", or none.

    `_SUFFIX` stands for what belongs to the name before: "Jr.".
    """
    if _fold(fragment) in _SUFFIXES:
        return _SUFFIX
    if _CREDIT.search(fragment):
        return []
    words = fragment.split()
    closing = words[0].casefold() in _AND
    names, used = _names(words[closing:], artists, False)
    if used + closing == len(words) and all(_is_sure(name.split(), artists) for name in names):
        if closing or len(names) > 1 or name_key(fragment) in artists:
            return names
        # A name between commas is one of the list only if the list closes with "and".
        for at, other in enumerate(following):
            if more := _continued(other, following[at + 1 : at + 2], artists):
                return names if more != _SUFFIX else []
    return []


def _is_sure(words: Sequence[str], artists: Collection[str]) -> bool:
    """Whether words are a name without "by" saying so: known, with a given name, or all with capitals."""
    if name_key(" ".join(words)) in artists:
        return True
    plain = [word.strip(".,'\"").casefold() for word in words]
    if any(is_common_word(word) for word in plain[1:]) or (is_common_word(plain[0]) and not is_given_name(plain[0])):
        return False
    return (len(words) > 1 and is_given_name(plain[0])) or all(
        word[0].isupper() or word.casefold() in PARTICLES for word in words
    )
