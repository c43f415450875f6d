"""What prompts say, as sets that can be compared: fragments, modifiers, artists."""

from __future__ import annotations

from collections.abc import Collection

from unprompt.pictures.names import bare_artist, name_key
from unprompt.pictures.split import split_prompt, subject_of, tagged_fragments

Keys = frozenset[str]


def fragment_key(fragment: str) -> str:
    """Folds a fragment so that its spellings meet: case, accents, punctuation, and "by" before an artist, go.

    >>> fragment_key("by Claude Monet") == fragment_key("claude monet"), fragment_key("Oil-on-canvas")
    (True, 'oil on canvas')
    """
    return name_key(bare_artist(fragment.strip()))


def fragments_of(prompt: str, artists: Collection[str] = ()) -> Keys:
    """The keys of all fragments of a prompt. `artists` as for `split_prompt`."""
    return _keys(split_prompt(prompt, artists))


def modifiers_of(prompt: str, artists: Collection[str] = ()) -> Keys:
    """The keys of what says how a picture is made, artists included: all fragments but the subject's."""
    return fragments_of(prompt, artists) - fragments_of(subject_of(prompt, artists), artists)


def artists_of(prompt: str, artists: Collection[str] = ()) -> Keys:
    """The keys of the artists that a prompt credits."""
    return _keys([text for text, credits in tagged_fragments(prompt, artists) if credits])


def _keys(fragments: list[str]) -> Keys:
    return frozenset(filter(None, map(fragment_key, fragments)))
