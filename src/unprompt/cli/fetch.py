"""``unprompt fetch``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def fetch() -> None:
    """Download data sets that libraries are built from."""


@fetch.command()
@click.option("--parts", required=True, metavar="A-B,...", help="Part numbers, such as 1-100 or 1,5,10-20.")
@click.option("--large", is_flag=True, help="Of DiffusionDB Large (14,000 parts) instead of 2M (2,000 parts).")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to put them.")
@click.option("--metadata/--no-metadata", default=True, show_default=True, help="Fetch the table of the whole set too.")
@click.option(
    "--workers", type=click.IntRange(1, 8), default=4, show_default=True, metavar="N", help="Downloads at a time."
)
def diffusiondb(parts: str, large: bool, out: Path, metadata: bool, workers: int) -> None:
    """Download parts of DiffusionDB, 1,000 pictures each, checked against the hub's sha256.

    Run again, the same command goes on where it was cut. Then: unprompt build DIR --library my.library. The environment
    variable HF_ENDPOINT names a mirror of the hub.
    """
    from unprompt.builders.fetch import diffusiondb_paths, fetch_files, parse_parts
    from unprompt.cli.progress import bytes_bar

    paths = diffusiondb_paths(parse_parts(parts, large), large, metadata)
    with bytes_bar("fetch") as progress:
        report = fetch_files(paths, out, workers=workers, progress=progress)
    click.echo(
        f"{report.folder}: {report.fetched:,} files fetched ({report.bytes / 1e6:.1f} MB), "
        f"{report.known:,} were there already"
    )
