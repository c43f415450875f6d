"""The paper's tokenisation of prompts: words in lower case, without punctuation and numbers."""

from __future__ import annotations

from unprompt.pictures.thesis_words import thesis_words


def plain_words(prompt: str) -> str:
    """The words of a prompt in lower case, one space between them; see `thesis_words`.

    >>> plain_words("A cat, 8k; by Greg Rutkowski (1.2)!")
    'a cat by greg rutkowski'
    """
    return " ".join(thesis_words(prompt))
