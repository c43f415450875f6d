"""Comparing texts by their words, whatever the case, punctuation and articles."""

from __future__ import annotations

import re

_LITTLE = frozenset({"a", "an", "the", "by"})


def plain_words(text: str) -> str:
    """The words of a text with a space before and after each; "" when there is none but articles and "by"."""
    words = [word for word in re.findall(r"\w+", text.casefold()) if word not in _LITTLE]
    return f" {' '.join(words)} " if words else ""


def holds_words(text: str, fragment: str) -> bool:
    """Whether the words of `fragment` stand in `text` in one run, whatever their case, punctuation and articles.

    Example:
        >>> holds_words("An oil-painting by Monet", "the oil painting"), holds_words("sunlight", "sun")
        (True, False)
    """
    return plain_words(fragment) in plain_words(text)


def append(prompt: str, fragment: str) -> str:
    """The prompt, ", " and the fragment; punctuation at the prompt's end does not double."""
    return f"{prompt.rstrip(' ,;.')}, {fragment}" if prompt else fragment
