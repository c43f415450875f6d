"""Tokenisations that more than one metric uses."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The runs of letters and digits of a text, in lower case.

    >>> words("A cat, 8k; black-and-white")
    ['a', 'cat', '8k', 'black', 'and', 'white']
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())
