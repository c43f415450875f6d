"""The options that say which library is searched, and which of its pictures may be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.backends.protocol import SearchBackend
    from unprompt.index.library import Library
    from unprompt.index.where import Where


def searching_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --library, --backend and --where; the command gets `root`, `backend` and `where`."""
    library = click.option("--library", "root", type=click.Path(path_type=Path), metavar="DIR", help="The library.")
    backend = click.option(
        "--backend",
        metavar="URL",
        help="Search the library that `unprompt push` put there; --library then gives its own vocabulary only.",
    )
    where = click.option(
        "--where",
        metavar="CONDITION",
        help="Only pictures whose metadata match, such as \"steps >= 30 and sampler = 'k_lms'\".",
    )
    return library(backend(where(command)))


def open_searched(root: Path | None, backend: str | None) -> Library | SearchBackend:
    """The library that is searched.

    Raises:
        click.UsageError: neither is given.
        LibraryError: one cannot be opened, or they are of different encoders.
    """
    from unprompt.index.library import Library

    if backend is None:
        if root is None:
            raise click.UsageError("give a --library, or a --backend")
        return Library.open(root)
    from unprompt.backends.opening import open_backend

    return open_backend(backend, None if root is None else Library.open(root))


def parse_condition(text: str | None) -> Where | None:
    """The condition that was given, None when none was.

    Raises:
        QueryError: it cannot be read.
    """
    if text is None:
        return None
    from unprompt.index.where_parser import parse_where

    return parse_where(text)
