"""``unprompt vocabulary``: fragments in and out of a library."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

_library = click.option(
    "--library", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The library's folder."
)


@click.group()
def vocabulary() -> None:
    """Add, list, remove and export prompt fragments: artists, mediums, movements, flavors, your own."""


@vocabulary.command()
@click.argument("lists", nargs=-1, required=True, metavar="FILE|PACKAGE...")
@_library
@click.option("--kind", help="Kind of the terms that do not say theirs, such as artist; any word of your own will do.")
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
def add(lists: tuple[str, ...], library: Path, kind: str | None, device: str) -> None:
    """Add the terms of text files (one a line), csv files (text,kind,count) or of the clip-interrogator package.

    Only texts that the vocabulary lacks are encoded.
    """
    from unprompt.builders.fragments import read_fragments
    from unprompt.builders.vocabulary import add_fragments
    from unprompt.cli.progress import progress_bar
    from unprompt.encoders import load_encoder
    from unprompt.index.library import Library

    name = Library.open(library).manifest.encoder.name
    fragments = [fragment for spec in lists for fragment in read_fragments(spec, kind)]
    encoder = load_encoder(name, device=device)
    with progress_bar("fragments", " texts", len(fragments)) as progress:
        encoded = add_fragments(library, fragments, encoder, progress)
    total = len(Library.open(library).vocabulary)
    click.echo(f"{len(fragments):,} fragments read, {encoded:,} new texts encoded, {total:,} in {library}")


@vocabulary.command("list")
@_library
@click.option("--kind", help="Only this kind.")
def list_(library: Path, kind: str | None) -> None:
    """Print the fragments, one a line: kind, text and count, separated by tabs."""
    from unprompt.index.library import Library

    opened = Library.open(library).vocabulary
    opened.check_kinds([kind] if kind else [])
    for fragment in opened.fragments(kind):
        click.echo(f"{fragment.kind}\t{fragment.text}\t{fragment.count}")


@vocabulary.command()
@click.argument("texts", nargs=-1, metavar="TEXT...")
@_library
@click.option("--kind", help="Only this kind; without TEXT, the whole kind.")
def remove(texts: tuple[str, ...], library: Path, kind: str | None) -> None:
    """Remove fragments by their exact text, or a whole kind."""
    from unprompt.builders.vocabulary import remove_fragments

    if not texts and not kind:
        raise click.UsageError("name a TEXT to remove, or a --kind")
    gone = remove_fragments(library, set(texts), {kind} if kind else set())
    click.echo(f"{gone:,} fragments removed from {library}")


@vocabulary.command()
@click.argument("file", type=click.Path(path_type=Path))
@_library
@click.option("--kind", help="Only this kind.")
def export(file: Path, library: Path, kind: str | None) -> None:
    """Write the fragments to FILE as csv (text,kind,source,count), which `add` reads; - for standard output."""
    from unprompt.index.files import write_durably
    from unprompt.index.library import Library

    opened = Library.open(library).vocabulary
    opened.check_kinds([kind] if kind else [])
    fragments = opened.fragments(kind)
    lines = _csv_lines([["text", "kind", "source", "count"], *([f.text, f.kind, f.source, f.count] for f in fragments)])
    if str(file) == "-":
        sys.stdout.write(lines)
        return
    write_durably(file, lambda out: out.write(lines.encode()))
    click.echo(f"{len(fragments):,} fragments written to {file}")


def _csv_lines(rows: list[list[object]]) -> str:
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
