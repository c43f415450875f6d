"""The thesis's tokenisation of prompts, which its captioners are trained on and its BLEU is computed with."""

from __future__ import annotations

import re
import unicodedata

_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def thesis_words(text: str) -> list[str]:
    """The thesis's tokenisation: lower case, numbers and punctuation removed, split at spaces.

    What holds a digit goes as a whole ("8k", "1920s"), apostrophes inside words stay, other punctuation parts words:
    captioners of the thesis's kind are trained on the same.

    >>> thesis_words("A cat, 8k; by Greg Rutkowski (1.2)!")
    ['a', 'cat', 'by', 'greg', 'rutkowski']
    """
    pieces = unicodedata.normalize("NFC", text).lower().split()
    return [word for piece in pieces if not any(map(str.isdigit, piece)) for word in _LETTERS.findall(piece)]
