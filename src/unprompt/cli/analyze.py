"""``unprompt analyze``: which terms of each kind fit these pictures?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.csv_text import csv_text
from unprompt.cli.settings import ranking_options, settings_of

if TYPE_CHECKING:
    from unprompt.search.results import Analysis

_HEADER = "image,kind,rank,text,score,percentile,source"


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--library", "root", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The library.")
@click.option("-k", default=5, show_default=True, metavar="K", help="How many terms of each kind.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True,
    help="text for people; csv, one row a term; json, one object a line and picture.",
)  # fmt: skip
@ranking_options
@click.option("--batch-size", default=16, show_default=True, metavar="N", help="Pictures encoded at a time.")
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
@click.pass_context
def analyze(
    context: click.Context,
    /,
    images: tuple[str, ...],
    root: Path,
    k: int,
    format_: str,
    batch_size: int,
    device: str,
    **options: Any,
) -> None:
    """Print the terms of the vocabulary that fit each IMAGE best, by kind, with their scores.

    The score is the cosine of the term with the picture; the percentile says which share of the pictures that the
    vocabulary was calibrated on the term fits less well. IMAGE is as for query.
    """
    from unprompt.cli.pictures import query_images
    from unprompt.index.library import Library
    from unprompt.search.engine import Engine, check_positive
    from unprompt.search.settings import check_settings

    check_positive("k", k)
    check_positive("batch size", batch_size)
    settings = settings_of(options)
    library = Library.open(root)
    check_settings(library.vocabulary, settings)
    engine = Engine(library, device=device)
    pictures = query_images(images, engine.encoder.preprocess)
    if format_ == "csv":
        click.echo(_HEADER)
    for batch in engine.embed(pictures, batch_size):
        for analysis in engine.analyze(batch, k, settings):
            click.echo(_FORMATS[format_](analysis), nl=format_ != "csv")
    if pictures.failed:
        context.exit(1)


def _json(analysis: Analysis) -> str:
    return json.dumps(analysis.to_dict(), allow_nan=False)


def _csv(analysis: Analysis) -> str:
    from unprompt.search.results import number

    return csv_text(
        (analysis.image, kind, rank, each.text, number(each.score), percentile, each.fragment.source)
        for kind, found in analysis.fragments.items()
        for rank, each in enumerate(found, start=1)
        for percentile in ["" if each.percentile is None else number(each.percentile)]
    )


def _text(analysis: Analysis) -> str:
    from unprompt.cli.query_output import format_analysis

    return format_analysis(analysis)


_FORMATS = {"text": _text, "csv": _csv, "json": _json}
