"""``unprompt vocabulary``: fragments in and out of a library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unprompt.cli.csv_text import csv_text

if TYPE_CHECKING:
    from unprompt.types import Fragment

_COLUMNS = ("text", "kind", "source", "count", "namespace", "born", "died")

_library = click.option(
    "--library", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The library's folder."
)
_kind = click.option("--kind", help="Only this kind.")
_namespace = click.option("--namespace", metavar="NAME", help="Only this namespace.")


@click.group()
def vocabulary() -> None:
    """Add, list, remove and export prompt fragments: artists, mediums, movements, flavors, your own."""


@vocabulary.command()
@click.argument("lists", nargs=-1, required=True, metavar="FILE|PACKAGE...")
@_library
@click.option("--kind", help="Kind of the terms that do not say theirs, such as artist; any word of your own will do.")
@click.option("--namespace", metavar="NAME", help="Whose list this is.  [default: stock, or as the list says]")
@click.option(
    "--form", "forms", multiple=True, metavar="FORM",
    help='How terms of --kind stand in a prompt, such as "in the style of {}". May be repeated.',
)  # fmt: skip
@click.option(
    "--ci-cache", "caches", multiple=True, nargs=2, metavar="CACHE LIST",
    help="Take over what clip-interrogator embedded with the library's model: its .safetensors cache, and the list "
         'file that it was made of, or "trendings". May be repeated.',
)  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
def add(
    lists: tuple[str, ...],
    library: Path,
    kind: str | None,
    namespace: str | None,
    forms: tuple[str, ...],
    caches: tuple[tuple[str, str], ...],
    device: str,
) -> None:
    """Add the terms of text files (one a line), csv or json files, or of the clip-interrogator package.

    An artist is listed by name and stands in prompts as "by NAME" and "inspired by NAME". Only texts that neither the
    vocabulary nor this machine's cache of embeddings has are encoded.
    """
    from unprompt.builders.fragments import read_fragments
    from unprompt.builders.seed import seed_from_ci
    from unprompt.builders.vocabulary import add_fragments, count_terms
    from unprompt.cli.progress import progress_bar
    from unprompt.encoders import load_encoder
    from unprompt.index.library import Library
    from unprompt.index.text_cache import TextCache
    from unprompt.index.vocabulary import FORMS

    if forms and not kind:
        raise click.UsageError("--form says how the terms of a --kind stand in a prompt; name the --kind")
    manifest = Library.open(library).manifest
    fragments = [fragment for spec in lists for fragment in read_fragments(spec, kind, namespace)]
    chosen = {**FORMS, **({kind: forms} if kind and forms else {})}
    encoder = load_encoder(manifest.encoder.name, device=device)
    cache = TextCache(encoder, manifest.dtype)
    for file, labels in caches:
        seed_from_ci(Path(file), labels, encoder, cache)
    with progress_bar("vocabulary", " terms", count_terms(fragments, chosen)) as progress:
        report = add_fragments(library, fragments, encoder, progress, forms=chosen, cache=cache)
    total = len(Library.open(library).vocabulary)
    restored = f", {report.restored:,} restored" if report.restored else ""
    cached = f" ({report.cached:,} more were known)" if report.cached else ""
    click.echo(
        f"{len(fragments):,} fragments read, {report.added:,} added{restored}, "
        f"{report.encoded:,} new texts encoded{cached}, {total:,} in {library}"
    )


@vocabulary.command("list")
@_library
@_kind
@_namespace
@click.option("--removed", is_flag=True, help="List what was removed and can be restored.")
def list_(library: Path, kind: str | None, namespace: str | None, removed: bool) -> None:
    """Print the fragments, one a line: kind, text and count, separated by tabs."""
    for fragment in _select(library, kind, namespace, removed):
        click.echo(f"{fragment.kind}\t{fragment.text}\t{fragment.count}")


@vocabulary.command()
@click.argument("texts", nargs=-1, metavar="TEXT...")
@_library
@_kind
@_namespace
@click.option("--purge", is_flag=True, help="Remove for good; without it, restore brings them back.")
def remove(texts: tuple[str, ...], library: Path, kind: str | None, namespace: str | None, purge: bool) -> None:
    """Remove fragments by their exact text, a whole kind, or a namespace; what is given must all match.

    They are in no answer any more, but stay in the library, so that restoring them or adding them again is instant.
    """
    from unprompt.builders.vocabulary import remove_fragments

    gone = remove_fragments(library, *_selection(texts, kind, namespace), purge=purge)
    click.echo(f"{gone:,} fragments removed from {library}{' for good' if purge else ''}")


@vocabulary.command()
@click.argument("texts", nargs=-1, metavar="TEXT...")
@_library
@_kind
@_namespace
def restore(texts: tuple[str, ...], library: Path, kind: str | None, namespace: str | None) -> None:
    """Bring back fragments that were removed without --purge."""
    from unprompt.builders.vocabulary import restore_fragments

    back = restore_fragments(library, *_selection(texts, kind, namespace))
    click.echo(f"{back:,} fragments restored in {library}")


@vocabulary.command()
@_library
def calibrate(library: Path) -> None:
    """Measure anew how near each fragment usually is to the library's pictures.

    `add` does so by itself when there are pictures enough. Do it again when the library has become another one, so
    that percentiles are those of the pictures that it has now.
    """
    from unprompt.builders.vocabulary import calibrate_vocabulary

    count = calibrate_vocabulary(library)
    click.echo(f"calibrated on {count:,} pictures of {library}")


@vocabulary.command()
@_library
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
def prepare(library: Path, device: str) -> None:
    """Embed every fragment at the end of a prompt, from which --mode best learns to find better prompts.

    Some minutes for 100,000 fragments with the starter encoder. They are kept on this machine, so it is done once for
    all libraries; what is added to a vocabulary later is embedded when it is prepared again.
    """
    from unprompt.builders.contexts import embed_contexts
    from unprompt.cli.progress import progress_bar
    from unprompt.encoders import load_encoder
    from unprompt.index.library import Library

    opened = Library.open(library)
    encoder = load_encoder(opened.manifest.encoder.name, device=device)
    with progress_bar("prepare", " terms", len(set(opened.vocabulary.terms))) as progress:
        count, encoded = embed_contexts(library, encoder, progress)
    click.echo(f"{count:,} terms in context, {encoded:,} of them embedded now")


@vocabulary.command()
@click.argument("file", type=click.Path(path_type=Path))
@_library
@_kind
@_namespace
def export(file: Path, library: Path, kind: str | None, namespace: str | None) -> None:
    """Write the fragments to FILE as csv, which `add` reads; - for standard output."""
    from unprompt.index.files import write_durably

    fragments = _select(library, kind, namespace)
    lines = csv_text([_COLUMNS, *([getattr(fragment, name) or "" for name in _COLUMNS] for fragment in fragments)])
    if str(file) == "-":
        sys.stdout.write(lines)
        return
    write_durably(file, lambda out: out.write(lines.encode()))
    click.echo(f"{len(fragments):,} fragments written to {file}")


def _select(library: Path, kind: str | None, namespace: str | None, removed: bool = False) -> list[Fragment]:
    from unprompt.errors import QueryError
    from unprompt.index.library import Library

    opened = Library.open(library).vocabulary
    if not removed:
        opened.check_kinds([kind] if kind else [])
    if namespace and namespace not in opened.namespaces and not removed:
        known = ", ".join(opened.namespaces) or "none"
        raise QueryError(f"no fragments of namespace {namespace!r} in this library; known namespaces: {known}")
    return opened.fragments(kind, namespace, deleted=removed)


def _selection(texts: Sequence[str], kind: str | None, namespace: str | None) -> tuple[set[str], set[str], set[str]]:
    if not texts and not kind and not namespace:
        raise click.UsageError("name a TEXT, a --kind or a --namespace")
    return set(texts), {kind} if kind else set(), {namespace} if namespace else set()
