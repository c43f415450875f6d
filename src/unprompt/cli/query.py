"""``unprompt query``: which prompts made these pictures?"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unprompt.pictures.opening import PictureError
    from unprompt.search.inputs import QueryImage
    from unprompt.search.results import QueryResult
    from unprompt.types import Preprocess


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--library", "root", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The library.")
@click.option(
    "-k", default=5, show_default=True, metavar="K", help="How many prompts, neighbours, and fragments of each kind."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line and picture, as each batch is done."
)
@click.option("--kinds", metavar="KIND,...", help='Kinds of fragments to look for; all by default, none with "".')
@click.option(
    "--batch-size", default=16, show_default=True, metavar="N", help="Pictures encoded and searched at a time."
)
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
@click.pass_context
def query(
    context: click.Context,
    images: tuple[str, ...],
    root: Path,
    k: int,
    as_json: bool,
    kinds: str | None,
    batch_size: int,
    device: str,
) -> None:
    """Find the prompts that may have made each IMAGE.

    An IMAGE is a picture, a folder, which is searched for pictures with all its subfolders, or - for a picture on
    standard input.

    A picture that cannot be read gives a warning on standard error; the others are answered, and the exit status is 1.
    """
    from unprompt.index.library import Library
    from unprompt.search.engine import Engine, check_positive

    check_positive("k", k)
    check_positive("batch size", batch_size)
    library = Library.open(root)
    chosen = split_kinds(kinds)
    library.vocabulary.check_kinds(chosen or ())  # before the encoder, which takes seconds to load
    engine = Engine(library, device=device)

    pictures = OpenedPictures(images, engine.encoder.preprocess)
    remaining = iter(pictures)
    while batch := list(islice(remaining, batch_size)):
        for result in engine.query(batch, k=k, kinds=chosen, batch_size=batch_size):
            _print(result, as_json)
    if pictures.failed:
        context.exit(1)


def split_kinds(kinds: str | None) -> list[str] | None:
    """The distinct names in a comma-separated list, in its order; None stays None."""
    if kinds is None:
        return None
    return list(dict.fromkeys(name for part in kinds.split(",") if (name := part.strip())))


class OpenedPictures:
    """Opens the pictures that a command line names, one after the other, and warns of those that it cannot read.

    Attributes:
        failed: how many names gave no picture so far.
    """

    def __init__(self, names: Sequence[str], preprocess: Preprocess) -> None:
        self.names = names
        self.preprocess = preprocess
        self.failed = 0

    def __iter__(self) -> Iterator[QueryImage]:
        from unprompt.pictures.opening import PictureError
        from unprompt.search.inputs import decode_query_image, load_query_image

        for name in self._paths():
            try:
                if name == "-":
                    yield decode_query_image(name, _read_standard_input(), self.preprocess)
                else:
                    yield load_query_image(name, self.preprocess)
            except PictureError as error:
                self._warn(error)

    def _paths(self) -> Iterator[str]:
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


def _print(result: QueryResult, as_json: bool) -> None:
    from unprompt.cli.query_output import format_result

    click.echo(json.dumps(result.to_dict(), allow_nan=False) if as_json else format_result(result))
