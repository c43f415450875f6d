"""``unprompt build``, ``add`` and ``remove``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.index import describe_report, goal_from, goal_options, measured_indexes

if TYPE_CHECKING:
    from unprompt.builders.build import Runner
    from unprompt.builders.report import BuildReport
    from unprompt.builders.sources import SourceOptions
    from unprompt.index.training import Accelerator
    from unprompt.types import Encoder

_FILTERS = ("aspect-ratio", "blurred", "prompt-nsfw", "cfg", "steps")

_COMMON: list[Callable[..., Any]] = [
    click.option("--format", "format_", default="auto", show_default=True, metavar="NAME",
                 help="What the sources are: folder, pairs, metadata, diffusiondb, comfyui-templates, prompts, "
                      "clip-retrieval, embeddings, webdataset, datasets or coco."),
    click.option("--image-column", metavar="NAME", help="Column of a table that names the picture."),
    click.option("--prompt-column", metavar="NAME", help="Column of a table that holds the prompt."),
    click.option("--embedding-column", metavar="NAME", help="Parquet column that holds embeddings of pictures."),
    click.option("--text-embedding-column", metavar="NAME", help="Parquet column that holds embeddings of prompts."),
    click.option("--no-filter", "no_filters", multiple=True, type=click.Choice([*_FILTERS, "all"]),
                 help="DiffusionDB: switch a filter off. May be repeated."),
    click.option("--aspect-ratio", type=float, default=1.0, show_default=True, metavar="X",
                 help="DiffusionDB: width / height wanted."),
    click.option("--max-prompt-nsfw", type=float, default=0.5, show_default=True, metavar="P",
                 help="DiffusionDB: highest prompt_nsfw kept."),
    click.option("--min-cfg", type=float, default=0.0, show_default=True, metavar="X",
                 help="DiffusionDB: lowest guidance scale kept."),
    click.option("--min-steps", type=int, default=10, show_default=True, metavar="N",
                 help="DiffusionDB: fewest sampling steps kept."),
    click.option("--shard-size", type=click.IntRange(1), default=4096, show_default=True, metavar="N",
                 help="Rows a shard; an interrupted build loses at most the shard in hand."),
    click.option("--batch-size", type=click.IntRange(1), default=None, metavar="N",
                 help="Pictures a call of the encoder; 64, or 1024 with a GPU, when not given."),
    click.option("--workers", type=click.IntRange(0), default=None, metavar="N",
                 help="Decoding processes; one a core, 4 at most, when not given; 0 decodes in the main process."),
    click.option("--device", default="cpu", show_default=True,
                 help="Where the encoder runs and the index is built: cpu, cuda, cuda:1 ..."),
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
                 help="What decodes, encodes and indexes: this machine, or a Ray cluster."),
    click.option("--address", metavar="HOST:PORT|auto",
                 help="Head of a running Ray cluster; without it --engine ray starts one on this machine."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object."),
]  # fmt: skip


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_COMMON):
        command = option(command)
    return command


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--library", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the library.")
@click.option(
    "--encoder",
    "encoder_name",
    metavar="NAME",
    help="starter, open_clip:MODEL/TAG or transformers:NAME.  [default: starter, or the library's own]",
)
@click.option(
    "--index",
    metavar="FACTORY|auto",
    help="FAISS factory string, such as Flat or IVF1024,SQfp16.  [default: auto, or the library's own]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Of the stored embeddings of a new library.",
)
@goal_options
@_common
def build(
    sources: tuple[str, ...], library: Path, encoder_name: str | None, index: str | None, dtype: str, **options: Any
) -> None:
    """Build a library from pictures and their prompts, or from prompts alone.

    SOURCE is a folder of pictures with .txt files beside them; a folder with a table (pairs.jsonl, csv, parquet) or the
    table itself; pictures that carry their prompt in their metadata; parts of DiffusionDB, zipped or not; webdataset
    .tar shards; COCO's captions; parquet with pictures in it, or "datasets:NAME[:SPLIT]" of Hugging Face; a list of
    prompts; or "comfyui-templates", the pictures of the installed ComfyUI template packages.

    Embeddings made before are taken as they are, and no picture is opened: folders of clip-retrieval, .npy files with a
    table of their prompts, parquet columns, another library. Name the encoder that made them with --encoder.

    Run again, the same command encodes only what is new; after an interruption, it resumes. What was left out is
    counted in the report and listed in skipped.jsonl in the library.
    """
    _build(sources, library, encoder_name, index, dtype, **options)


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_common
def add(library: Path, sources: tuple[str, ...], **options: Any) -> None:
    """Add sources to an existing LIBRARY with its own encoder and kind of index; only what is new is encoded."""
    from unprompt.index.manifest import Manifest

    _build(sources, library, Manifest.read(library).encoder.name, None, "float16", **options)


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.argument("rows", nargs=-1, metavar="ROW...")
@click.option("--prompt", "prompts", multiple=True, help="An exact prompt; all its rows go. May be repeated.")
def remove(library: Path, rows: tuple[str, ...], prompts: tuple[str, ...]) -> None:
    """Remove rows from a LIBRARY for good, without encoding anything again.

    ROW is an id as `query` prints it, a picture file (found by its content), or a glob such as '*/drafts/*' over the
    places that pictures were built from.
    """
    from unprompt.index.remove import remove_rows

    if not rows and not prompts:
        raise click.UsageError("name a ROW to remove, or a --prompt")
    click.echo(f"{remove_rows(library, rows, prompts):,} rows removed from {library}")


def _build(
    specs: tuple[str, ...],
    library: Path,
    encoder_name: str | None,
    index: str | None,
    dtype: str,
    *,
    format_: str,
    shard_size: int,
    batch_size: int | None,
    workers: int | None,
    device: str,
    engine: str,
    address: str | None,
    as_json: bool,
    max_memory: str | None = None,
    max_latency: str | None = None,
    recall: float | None = None,
    **source_options: Any,
) -> None:
    from unprompt.builders.build import build_library
    from unprompt.builders.sources import open_source
    from unprompt.cli.progress import counting_bar
    from unprompt.encoders import load_encoder
    from unprompt.index.manifest import MANIFEST, Manifest
    from unprompt.index.target import IndexOptions

    if address and engine != "ray":
        raise click.UsageError(f"--address {address} names a Ray cluster: add --engine ray")
    goal = goal_from(max_memory, max_latency, recall)

    if encoder_name is None:
        there = (library / MANIFEST).exists()
        encoder_name = Manifest.read(library).encoder.name if there else "starter"
    options = _source_options(**source_options)
    sources = [open_source(spec, format_, options) for spec in specs]
    for spec, source in zip(specs, sources, strict=True):
        click.echo(f"{spec}: {source.format}", err=True)
    encoder = load_encoder(encoder_name, device="cpu" if engine == "ray" else device)
    with (
        _engine(engine, address, encoder, device) as (runner, accelerator),
        counting_bar("build", " entries", sources) as progress,
    ):
        report = build_library(
            sources,
            library,
            encoder,
            index=index,
            shard_size=shard_size,
            batch_size=batch_size or (64 if device == "cpu" else 1024),
            dtype=dtype,
            workers=workers,
            progress=progress,
            runner=runner,
            options=IndexOptions(goal=goal, accelerator=accelerator),
        )
    measured = measured_indexes(library, [index.name for index in report.indexes if index.recall is not None])
    if as_json:
        facts = {**report.to_dict(), "index_reports": {name: asdict(seen) for name, seen in measured.items()}}
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    click.echo("\n".join([describe(report), *(line for item in measured.items() for line in describe_report(*item))]))


@contextmanager
def _engine(
    name: str, address: str | None, encoder: Encoder, device: str
) -> Iterator[tuple[Runner | None, Accelerator | None]]:
    """What decodes and encodes, and what makes indexes; None for this machine's cores."""
    if name == "local":
        from unprompt.index.gpu.device import accelerator_for

        yield None, accelerator_for(device)
        return
    from unprompt.builders.cluster.indexing import ClusterAccelerator
    from unprompt.builders.cluster.runner import ClusterRunner
    from unprompt.builders.cluster.session import ray_cluster
    from unprompt.builders.cluster.tasks import EncoderSpec

    with ray_cluster(address) as ray:
        yield ClusterRunner(ray, EncoderSpec(encoder.name, encoder.fingerprint, device)), ClusterAccelerator(ray)


def _source_options(
    *,
    image_column: str | None,
    prompt_column: str | None,
    embedding_column: str | None,
    text_embedding_column: str | None,
    no_filters: tuple[str, ...],
    aspect_ratio: float,
    max_prompt_nsfw: float,
    min_cfg: float,
    min_steps: int,
) -> SourceOptions:
    from unprompt.builders.sources import DiffusionFilters, SourceOptions

    off = set(_FILTERS if "all" in no_filters else no_filters)
    filters = DiffusionFilters(
        aspect_ratio=None if "aspect-ratio" in off else aspect_ratio,
        skip_blurred="blurred" not in off,
        prompt_nsfw=None if "prompt-nsfw" in off else max_prompt_nsfw,
        min_cfg=None if "cfg" in off else min_cfg,
        min_steps=None if "steps" in off else min_steps,
    )
    return SourceOptions(image_column, prompt_column, filters, embedding_column, text_embedding_column)


def describe(report: BuildReport) -> str:
    """The report for people, a fact a line."""
    rate = report.pictures / report.encoding_seconds if report.encoding_seconds else 0.0
    lines = [f"{report.library}: {report.bytes / 1e6:.1f} MB, built in {report.seconds:.1f} s"]
    lines.append(f"  pictures  {report.pictures:,} added ({rate:.1f} a second), {report.totals['pictures']:,} in all")
    lines.append(f"  prompts   {report.prompts:,} added without pictures, {report.totals['prompts']:,} distinct in all")
    if report.imported:
        lines.append(f"  imported  {report.imported:,} of these with embeddings made elsewhere, taken as they were")
    if report.known or report.resumed:
        lines.append(
            f"  known     {report.known:,} were there already, {report.resumed:,} taken over from a broken build"
        )
    for index in report.indexes:
        recall = "" if index.recall is None else f", recall@10 {index.recall:.3f} against exact search"
        parameters = f" ({index.parameters})" if index.parameters else ""
        lines.append(f"  {index.name + ' index':<11} {index.factory}{parameters}, {index.rows:,} rows{recall}")
    for reason, count in sorted(report.skipped.items()):
        lines.append(f"  skipped   {count:,} {reason}")
    if report.skipped:
        lines.append(f"  listed in {Path(report.library) / 'skipped.jsonl'}")
    return "\n".join(lines)
