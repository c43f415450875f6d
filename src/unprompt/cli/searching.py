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


search_device_option = click.option(
    "--search-device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Where the library's indexes are searched: cpu, cuda, cuda:1 ...",
)


def searching_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --library, --backend, --search-device and --where.

    The command gets `root`, `backend`, `search_device` and `where`.
    """
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
    return library(backend(search_device_option(where(command))))


def open_library(root: Path, search_device: str) -> Library:
    """The library in a folder, searched on a device; whether that is there is asked at once.

    Raises:
        LibraryError: it cannot be opened, or there is no such device.
    """
    from unprompt.index.library import Library

    if search_device != "cpu":
        from unprompt.index.gpu.device import check_search_device

        check_search_device(search_device)
    return Library.open(root, search_device)


def open_searched(root: Path | None, backend: str | None, search_device: str = "cpu") -> Library | SearchBackend:
    """The library that is searched.

    Raises:
        click.UsageError: neither is given, or a device for a database, which searches on its own.
        LibraryError: one cannot be opened, they are of different encoders, or there is no such device.
    """
    from unprompt.index.library import Library

    if backend is None:
        if root is None:
            raise click.UsageError("give a --library, or a --backend")
        return open_library(root, search_device)
    if search_device != "cpu":
        raise click.UsageError("--search-device is for a --library; a --backend searches where it runs")
    from unprompt.backends.opening import open_backend

    return open_backend(backend, None if root is None else Library.open(root))


def warn_that_none_meets(where: str) -> None:
    """Says on standard error that a condition left no picture to search among."""
    click.echo(f"warning: no picture meets --where {where!r}; a missing value meets no condition", err=True)


def parse_condition(text: str | None) -> Where | None:
    """The condition that was given, None when none was.

    Raises:
        QueryError: it cannot be read.
    """
    if text is None:
        return None
    from unprompt.index.where_parser import parse_where

    return parse_where(text)
