"""The pictures that a command line names, opened one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import click

if TYPE_CHECKING:
    from unprompt.pictures.opening import PictureError
    from unprompt.search.inputs import QueryImage
    from unprompt.types import Preprocess

Opened = TypeVar("Opened")


class OpenedPictures(Generic[Opened]):
    """Opens the pictures that a command line names, and warns of those that it cannot read.

    Args:
        names: paths, folders, which are searched with all their subfolders, or - for standard input.
        decode: makes of a picture's name and bytes what is wanted of it.
        wanted: called with each path; one for which it is false is passed over.

    Attributes:
        failed: how many names gave no picture so far.
    """

    def __init__(
        self,
        names: Sequence[str],
        decode: Callable[[str, bytes], Opened],
        wanted: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.names = names
        self.decode = decode
        self.wanted = wanted
        self.failed = 0

    def __iter__(self) -> Iterator[Opened]:
        from unprompt.pictures.opening import PictureError, read_bytes
        from unprompt.types import Picture

        for name in self._listed:
            try:
                if isinstance(name, PictureError):
                    raise name
                if self.wanted(name):
                    yield self.decode(name, _read_standard_input() if name == "-" else read_bytes(Picture(name)))
            except PictureError as error:
                self._warn(error)

    @property
    def paths(self) -> list[str]:
        """Every picture that is named, in order."""
        return [name for name in self._listed if isinstance(name, str)]

    @cached_property
    def _listed(self) -> list[str | PictureError]:
        """The pictures, with an error in the place of a folder that has none."""
        from unprompt.pictures.opening import MISSING, PictureError

        listed: list[str | PictureError] = []
        for name in self.names:
            folder = name != "-" and Path(name).is_dir()
            listed += (
                (find_pictures(name) or [PictureError(MISSING, "no pictures in this folder", name)])
                if folder
                else [name]
            )
        return listed

    def _warn(self, error: PictureError) -> None:
        from unprompt.cli.query_output import printable

        self.failed += 1
        click.echo(f"warning: {printable(str(error))}", err=True)


def query_images(
    names: Sequence[str],
    preprocess: Preprocess,
    wanted: Callable[[str], bool] = lambda name: True,
    *,
    keep: bool = False,
) -> OpenedPictures[QueryImage]:
    """The pictures as queries for an encoder with this preprocessing, kept themselves if captioners are to see them."""
    from unprompt.search.inputs import decode_query_image

    return OpenedPictures(names, lambda name, data: decode_query_image(name, data, preprocess, keep=keep), wanted)


def find_pictures(folder: str) -> list[str]:
    """The pictures in a folder and its subfolders, by name, without hidden ones; links to folders are not followed."""
    from unprompt.pictures.opening import PICTURE_SUFFIXES

    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(parent, name)  # noqa: PTH118 - a Path would rewrite the name that the user gave
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]
    return found


def _read_standard_input() -> bytes:
    from unprompt.pictures.opening import MAX_BYTES, TOO_LARGE, PictureError

    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PictureError(TOO_LARGE, f"more than {MAX_BYTES} bytes", "-")
    return data
