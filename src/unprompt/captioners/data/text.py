"""The paper's tokenisation of prompts: words in lower case, without punctuation and numbers."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def plain_words(prompt: str) -> str:
    """The words of a prompt in lower case, one space between them.

    Whatever holds a digit goes as a whole ("8k", "1920s"), for what would be left of it is no word.

    >>> plain_words("A cat, 8k; by Greg Rutkowski (1.2)!")
    'a cat by greg rutkowski'
    """
    text = unicodedata.normalize("NFC", prompt).lower()
    kept = [piece for piece in re.split(r"\s+", text) if not any(character.isdigit() for character in piece)]
    return " ".join(_WORD.findall(" ".join(kept)))
