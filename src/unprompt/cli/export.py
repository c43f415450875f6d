"""``unprompt export``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["clip-retrieval", "npy", "parquet"]),
    default="clip-retrieval",
    show_default=True,
    help="Numbered shards, whole arrays, or tables with columns of embeddings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def export(library: Path, folder: Path, format_: str, as_json: bool) -> None:
    """Write the embeddings and records of a LIBRARY into a new FOLDER for other tools.

    `clip-retrieval index` and autofaiss read what is written, and so does `unprompt build FOLDER`.
    """
    from unprompt.builders.export import export_library
    from unprompt.index.library import Library

    report = export_library(Library.open(library), folder, format_)
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False))
        return
    click.echo(
        f"{report.folder}: {report.pictures:,} pictures and {report.prompts:,} prompts without pictures, "
        f"{report.bytes / 1e6:.1f} MB in {report.files} files"
    )
