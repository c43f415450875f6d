"""Small real libraries on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fakes import FakeEncoder
from unprompt.builders.build import build_library, encoder_info
from unprompt.builders.vocabulary import add_fragments
from unprompt.index.library import Library
from unprompt.index.refresh import refresh
from unprompt.index.writer import LibraryWriter
from unprompt.types import Entry, Fragment, Picture


def write_library(
    root: Path,
    encoder: FakeEncoder,
    pairs: Sequence[tuple[Path, str]] = (),
    prompts: Mapping[str, int] | None = None,
    fragments: Sequence[Fragment] = (),
) -> Library:
    """Writes a library of (picture, prompt) pairs, prompts with counts, and fragments, and opens it.

    Unlike a build it accepts that there are neither pictures nor prompts.
    """
    entries = [Entry(prompt, Picture(str(path))) for path, prompt in pairs]
    entries += [Entry(prompt, count=count) for prompt, count in (prompts or {}).items()]
    if entries:
        build_library([entries], root, encoder, workers=0)
    else:
        with LibraryWriter(root, encoder_info(encoder)) as writer:
            refresh(writer)
    if fragments:
        add_fragments(root, fragments, encoder)
    return Library.open(root)
