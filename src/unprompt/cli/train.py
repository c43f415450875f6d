"""``unprompt train``: a captioner, or a language model of prompts, from pairs to a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.index.library import Library
    from unprompt.types import Entry, Skipped

LANGUAGE_MODEL = "prompt-lm"
WARNED = 10


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--library", "root", type=click.Path(path_type=Path), metavar="DIR", help="Learn from this library.")
@click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Learn from this source. May be repeated.")
@click.option("--format", "format_", default="auto", show_default=True, metavar="NAME",
              help="What the sources are, as `build` takes it, or coco for a COCO captions file.")  # fmt: skip
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE", help="Options: TOML or JSON.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="An option, over those of the file, such as batch=128. May be repeated.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the checkpoint.")
@click.option("--cache", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for the backbone's features, which runs may share.  [default: OUT/cache]")  # fmt: skip
@click.option("--backbone", default="efficientnet-lite2", show_default=True, metavar="NAME",
              help="What sees the pictures: efficientnet-lite2 or resnet50:FILE_OR_REPOSITORY.")  # fmt: skip
@click.option("--encoder", default="starter", show_default=True, metavar="NAME",
              help="What finds neighbours among sources; a library's own finds them there.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where training runs: cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def train(
    name: str,
    root: Path | None,
    sources: tuple[str, ...],
    format_: str,
    file: Path | None,
    settings: tuple[str, ...],
    out: Path,
    cache: Path | None,
    backbone: str,
    encoder: str,
    device: str,
    as_json: bool,
) -> None:
    """Train a captioner NAME (lstm, transformer or bridge), or prompt-lm, a language model of prompts.

    Run again after an interruption, the same command goes on where it stopped and gives the same curve.
    """
    from unprompt.captioners.config import load_config
    from unprompt.captioners.data.pairs import read_pairs
    from unprompt.captioners.registry import model_class
    from unprompt.captioners.train import train_captioner
    from unprompt.captioners.training.pictures import Means, prepare_pictures
    from unprompt.cli.progress import step_bars
    from unprompt.encoders.registry import check_device

    if (root is None) == (not sources):
        raise click.UsageError("give either --library or --source")
    config = load_config(file, settings)
    model_class(name)
    check_device(device)
    library, entries = _open(root, sources, format_)
    alone = name == LANGUAGE_MODEL
    pairs = read_pairs(entries, split=config.data.split, text=config.data.text, pictures=not alone)
    pictures = None
    with step_bars() as progress:
        if not alone:
            means = Means(cache or out / "cache", backbone, encoder, device)
            pairs, pictures = prepare_pictures(pairs, config, means, library, progress)
            _warn(pictures.cache.skipped)
        report = train_captioner(name, pairs, pictures, config, out, device, progress)
    click.echo(json.dumps(report) if as_json else describe(report, out))


def describe(report: dict[str, Any], out: Path) -> str:
    """The report for people."""
    counts = ", ".join(f"{count:,} {split}" for split, count in report["pairs"].items())
    return (
        f"{out}: {report['captioner']}, {report['parameters']:,} parameters, {report['trained_parameters']:,} trained\n"
        f"  pairs       {counts}\n"
        f"  validation  {report['best']:.4f} nats a token after epoch {report['best_epoch']} of {report['epochs']}\n"
        f"  steps       {report['steps']:,} in {report['seconds']:.0f} s\n"
        f"  curve       {out / 'loss.png'}, {out / 'loss.csv'}"
    )


def _open(root: Path | None, specs: Sequence[str], format_: str) -> tuple[Library | None, Iterable[Entry | Skipped]]:
    if root is not None:
        from unprompt.captioners.data.library import library_entries
        from unprompt.index.library import Library

        library = Library.open(root)
        return library, library_entries(library)
    if format_ == "coco":
        from unprompt.pictures.coco import CocoSource

        return None, [entry for spec in specs for entry in CocoSource(Path(spec))]
    from unprompt.builders.sources import open_source

    return None, (entry for source in [open_source(spec, format_) for spec in specs] for entry in source)


def _warn(skipped: Sequence[Skipped]) -> None:
    """Names the first pictures that could not be read, and counts the others."""
    from unprompt.cli.query_output import printable

    for each in skipped[:WARNED]:
        click.echo(f"warning: {printable(each.uri)}: {each.reason} ({printable(each.detail)})", err=True)
    if len(skipped) > WARNED:
        click.echo(f"warning: {len(skipped) - WARNED:,} more pictures cannot be read", err=True)
