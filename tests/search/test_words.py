from __future__ import annotations

import pytest

from unprompt.search.words import append, holds_words, plain_words


@pytest.mark.parametrize(
    ("text", "fragment", "holds"),
    [
        ("a red dog, oil painting", "Oil-Painting", True),
        ("style of Claude Monet", "by Claude Monet", True),
        ("sunlight", "sun", False),
        ("oil on canvas", "oil canvas", False),
        ("red dog", "red dog, sitting", False),
        ("東京 タワー", "東京", True),
        ("anything", "the", True),
        ("anything", "...", True),
        ("", "dog", False),
    ],
)
def test_holds_words(text: str, fragment: str, holds: bool) -> None:
    assert holds_words(text, fragment) is holds


def test_plain_words_are_the_same_for_the_same_words() -> None:
    assert plain_words("The Oil-painting!") == plain_words("oil painting") == " oil painting "
    assert plain_words("by the ...") == plain_words("") == ""


def test_punctuation_at_the_end_of_a_prompt_does_not_double() -> None:
    assert append("A red dog. ", "sunset") == "A red dog, sunset"
    assert append("", "sunset") == "sunset"
