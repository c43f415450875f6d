"""Splitting prompts into fragments, and finding the part that says what is shown."""

from __future__ import annotations

from collections.abc import Collection

from unprompt.pictures.credits import split_credits
from unprompt.pictures.modifiers import guess_modifier
from unprompt.pictures.prompt_syntax import plain_fragments


def split_prompt(prompt: str, artists: Collection[str] = ()) -> list[str]:
    """Splits a prompt into its fragments.

    Commas, semicolons, pipes, line breaks, sentence ends, BREAK and AND part fragments, in full-width forms too.
    Brackets go and their words stay; weights, LoRA, hypernetwork and embedding tags and Midjourney's flags go.
    Alternation and prompt editing are written out: "a [red|blue] cat" gives "a red cat" and "a blue cat".
    Artists get a fragment each: "art by A, B and C" gives "by A", "by B", "by C", and so does "in the style of";
    "inspired by A and B" keeps its verb. No other word is lost.

    Args:
        prompt: any text; brackets need not match.
        artists: keys of artists known by name, from `unprompt.pictures.names.name_keys`. They make sure where a name
            ends and which "and" belongs to it; without them both are guessed from common words and given names.

    Returns:
        The fragments in the prompt's order, repetitions included, none empty. Splitting ``", ".join`` of them gives
        the same.

    Example:
        >>> split_prompt("(portrait of a cat:1.2) by Monet and Renoir, [[black and white]] <lora:cats:0.8>")
        ['portrait of a cat', 'by Monet', 'by Renoir', 'black and white']
    """
    return [text for text, _ in tagged_fragments(prompt, artists)]


def tagged_fragments(prompt: str, artists: Collection[str] = ()) -> list[tuple[str, bool]]:
    """The fragments that `split_prompt` gives, and of each whether it credits an artist."""
    plain = plain_fragments(prompt)
    tagged = split_credits(plain, artists)
    # What stood beside a name is a fragment of its own now, and is looked at as one.
    for _ in range(8):
        texts = [text for text, _ in tagged]
        if texts == plain:
            break
        plain = plain_fragments(", ".join(texts))
        tagged = split_credits(plain, artists)
    return tagged


def subject_of(prompt: str, artists: Collection[str] = ()) -> str:
    """The leading part of a prompt that says what the picture shows, before its artists and modifiers.

    Artists and modifiers at the very start are passed over. Of a prompt that has nothing but modifiers the first is
    returned, and "" of one that has nothing but artists.

    Example:
        >>> subject_of("portrait of a cat by Claude Monet, oil on canvas"), subject_of("style of Claude Monet, woman")
        ('portrait of a cat', 'woman')
    """
    tagged = tagged_fragments(prompt, artists)
    said: list[str] = []
    for text, is_artist in tagged:
        if not is_artist and guess_modifier(text) is None:
            said.append(text)
        elif said:
            break
    return ", ".join(said) or next((text for text, is_artist in tagged if not is_artist), "")
