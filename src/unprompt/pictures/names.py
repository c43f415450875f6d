"""Names of people in prompts: folding their spellings, and telling them from everyday words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files


def word_set(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


PARTICLES = word_set("""
    af al ap bin da das de degli del della den der des di do dos du e el ibn la las le les los mac of o ten ter
    the van vande vander vom von y zu
""")
"""What stands inside names in lower case."""

NEVER = word_set("""
    a an and another any are as at but by can each every for from has have he her here him his i in inside into is
    it its me my near no not off on or our out over own per she so some than that the their them then there these
    they this those through to too two under up us using very via was we were what when where which while who
    whose with without herself himself itself themselves myself yourself yourselves someone someones somebody
    various renowned famous multiple different many several award you your day night hand step side highly
    trending featured style styles
""")
"""What neither begins a name nor stands inside one."""

_PREFIX = re.compile(
    r"^(?:(?:in\s+)?(?:the\s+)?(?:art\s*)?styles?\s+of|(?:(?:art|artworks?)\s+)?(?:(?:inspired|influenced|painted|drawn|"
    r"illustrated|photographed|directed|designed|created|sculpted|rendered|inked|engraved|etched|sketched|animated|filmed|"
    r"made|written|shot|taken)\s+)?by)\s+(?=\S)",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[^\w\s]|_")
_INITIALS = re.compile(r"(?<!\S)(\w) (?=\w(?!\S))")


@lru_cache(maxsize=2)
def _words(name: str) -> frozenset[str]:
    return frozenset(files("unprompt.pictures").joinpath(name).read_text(encoding="utf-8").split())


def is_common_word(word: str) -> bool:
    """Whether a word, casefolded, is one of everyday or prompt language, and so rather not a part of a name.

    The list holds the words of at least 12 of 31,550 plain captions, or of 60 of 63,687 prompts, that are no part of a
    listed artist's name, corrected by hand.
    """
    return word in _words("common_words.txt")


def is_given_name(word: str) -> bool:
    """Whether a word, casefolded, is the first name of two or more listed artists, corrected by hand."""
    return word in _words("given_names.txt")


def name_key(name: str) -> str:
    """Folds a name so that its spellings meet: case, accents, punctuation and the blanks between initials go.

    Example:
        >>> name_key("H. R. Giger") == name_key("hr giger"), name_key("Jean-Baptiste Monge")
        (True, 'jean baptiste monge')
    """
    if not name.isascii():
        decomposed = unicodedata.normalize("NFKD", name)
        name = "".join(character for character in decomposed if not unicodedata.combining(character))
    name = name.casefold()
    if not name.replace(" ", "").isalnum():
        name = _MARKS.sub(" ", name.replace("'", "").replace("’", ""))
    words = name.split()
    return _INITIALS.sub(r"\1", " ".join(words)) if any(len(word) == 1 for word in words) else " ".join(words)


def name_keys(names: Iterable[str]) -> frozenset[str]:
    """The keys of many names, as `split_credits` wants them."""
    return frozenset(filter(None, map(name_key, names)))


def bare_artist(text: str) -> str:
    """Takes "by", "art by", "inspired by", "in the style of" and the like off the front of a name."""
    bare = _PREFIX.sub("", text, count=1)
    return bare if bare == text else bare_artist(bare)


def is_person_like(text: str) -> bool:
    """Whether a text reads like a person's name: a given name and one to four words that are not everyday ones."""
    words = [word.strip(".,'\"").casefold() for word in text.split()]
    if not 2 <= len(words) <= 5 or not is_given_name(words[0]):
        return False
    plain = all(word.replace("-", "").replace("'", "").isalpha() and word not in NEVER for word in words)
    return plain and not any(map(is_common_word, words[1:]))
