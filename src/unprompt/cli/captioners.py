"""The captioners that ``query`` asks for candidates and subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.search.settings import Settings
    from unprompt.types import Captioner

DEFAULT = "transformer"
"""The packaged captioner that is asked unless others are named."""
NONE = "none"


def captioner_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--captioner``; the command gets the names as ``captioners``, for `captioners_of`."""
    return click.option(
        "--captioner",
        "captioners",
        multiple=True,
        metavar="NAME",
        help="Who writes candidates for the final prompt in mode default, or its subject in fast, classic and best: "
        f"names and folders as for caption, or none. May be repeated.  [default: {DEFAULT} in mode default]",
    )(command)


def with_captions(settings: Settings, names: Sequence[str]) -> Settings:
    """Settings for which captioners write the subjects, where any are named for a mode that begins with one."""
    named = bool(set(names) - {NONE})
    writes = named and settings.begins_with_subject and settings.subject is None
    return replace(settings, captioned=True) if writes else settings


def captioners_of(names: Sequence[str], settings: Settings, pictures: bool, device: str) -> list[Captioner]:
    """Loads the captioners whose captions can be of use.

    Args:
        names: as they were given; none asks the default one, where it is packaged.
        settings: of the query, from `with_captions`.
        pictures: whether any are queried with one by one.
        device: where they compute.

    Raises:
        CaptionerError: there is no such captioner, or it is damaged.
        click.UsageError: captioners are named where nothing would come of it.
    """
    if NONE in names and len(set(names)) > 1:
        raise click.UsageError("--captioner none stands alone; leave the other captioners out")
    if NONE in names:
        return []
    useful = settings.wants_captions and pictures
    if names and not useful:
        raise click.UsageError(
            "--captioner writes for single pictures, not in mode retrieve or negative, nor with --subject: leave it out"
        )
    if not useful:
        return []
    from unprompt.captioners.registry import load_captioner, packaged

    chosen = list(dict.fromkeys(names)) or [name for name in (DEFAULT,) if name in packaged()]
    return [load_captioner(name, device) for name in chosen]
