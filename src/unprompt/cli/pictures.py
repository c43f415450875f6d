"""The pictures that a command line names, opened one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unprompt.pictures.opening import PictureError
    from unprompt.search.inputs import QueryImage
    from unprompt.types import Preprocess


class OpenedPictures:
    """Opens the pictures that a command line names, and warns of those that it cannot read.

    Args:
        names: paths, folders, which are searched with all their subfolders, or - for standard input.
        preprocess: the encoder's.
        wanted: called with each path; one for which it is false is passed over.

    Attributes:
        failed: how many names gave no picture so far.
    """

    def __init__(
        self, names: Sequence[str], preprocess: Preprocess, wanted: Callable[[str], bool] = lambda name: True
    ) -> None:
        self.names = names
        self.preprocess = preprocess
        self.wanted = wanted
        self.failed = 0

    def __iter__(self) -> Iterator[QueryImage]:
        from unprompt.pictures.opening import PictureError
        from unprompt.search.inputs import decode_query_image, load_query_image

        for name in self.paths():
            if not self.wanted(name):
                continue
            try:
                if name == "-":
                    yield decode_query_image(name, _read_standard_input(), self.preprocess)
                else:
                    yield load_query_image(name, self.preprocess)
            except PictureError as error:
                self._warn(error)

    def paths(self) -> Iterator[str]:
        """Every picture that is named, in order."""
        from unprompt.pictures.opening import MISSING, PictureError

        for name in self.names:
            if name == "-" or not Path(name).is_dir():
                yield name
                continue
            paths = find_pictures(name)
            yield from paths
            if not paths:
                self._warn(PictureError(MISSING, "no pictures in this folder", name))

    def _warn(self, error: PictureError) -> None:
        from unprompt.cli.query_output import printable

        self.failed += 1
        click.echo(f"warning: {printable(str(error))}", err=True)


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
