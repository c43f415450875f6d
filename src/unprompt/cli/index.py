"""``unprompt index``: choose, tune and describe a library's indexes, and join its shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unprompt.index.figures import IndexReport
    from unprompt.index.goal import IndexGoal
    from unprompt.index.manifest import IndexInfo

_GOAL: list[Callable[..., Any]] = [
    click.option("--max-memory", metavar="SIZE", help="Main memory that searching the library may need, such as 8GB."),
    click.option("--max-latency", metavar="TIME", help="What the search for one query may take, such as 10ms."),
    click.option("--recall", type=float, metavar="X", help="Recall@10 wanted of approximate indexes.  [default: 0.95]"),
]


def goal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of every command that makes indexes; `goal_from` reads their values."""
    for option in reversed(_GOAL):
        command = option(command)
    return command


_WHICH = click.option("--which", type=click.Choice(["both", "image", "text"]), default="both", show_default=True,
                      help="Pictures, prompts, or both.")  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def goal_from(max_memory: str | None, max_latency: str | None, recall: float | None) -> IndexGoal | None:
    """The goal that the options name; None when they name none, which keeps a library's own.

    Raises:
        LibraryError: a value cannot be read, or cannot be wanted.
    """
    from unprompt.index.goal import RECALL, IndexGoal, parse_bytes, parse_seconds

    if max_memory is None and max_latency is None and recall is None:
        return None
    return IndexGoal(
        RECALL if recall is None else recall,
        None if max_memory is None else parse_bytes(max_memory),
        None if max_latency is None else parse_seconds(max_latency),
    )


@click.group()
def index() -> None:
    """Tune, rebuild or describe the indexes of a library, or join its shards."""


@index.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option("--recall", type=float, metavar="X", help="Recall@10 wanted.  [default: the library's own, 0.95]")
@_WHICH
@_JSON
def tune(library: Path, recall: float | None, which: str, as_json: bool) -> None:
    """Find the least search parameters of LIBRARY's indexes that reach a recall, and keep them.

    Recall is measured against exact search, with rows that are held out of their own answers; the prompt index is asked
    with pictures, as queries do.
    """
    from unprompt.index.rebuild import tune_library

    _print_reports(library, tune_library(library, recall, _names(which)), as_json)


@index.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option("--index", "factory", metavar="FACTORY|auto", help="FAISS factory string.  [default: the library's own]")
@_WHICH
@click.option("--device", default="cpu", show_default=True, help="Where the index is built: cpu, cuda, cuda:0,1 ...")
@goal_options
@_JSON
def rebuild(library: Path, factory: str | None, which: str, device: str, as_json: bool, **limits: Any) -> None:
    """Make LIBRARY's indexes anew from its stored embeddings; the old ones serve until the new ones are ready."""
    from unprompt.index.gpu.device import accelerator_for
    from unprompt.index.rebuild import rebuild_library

    goal = goal_from(**limits)
    reports = rebuild_library(library, factory, goal, _names(which), accelerator_for(device))
    _print_reports(library, reports, as_json)


@index.command()
@click.argument("library", type=click.Path(path_type=Path))
@_JSON
def report(library: Path, as_json: bool) -> None:
    """Describe LIBRARY's indexes: kind, size, parameters, recall, speed, and why they were chosen."""
    from unprompt.index.rebuild import describe_library

    found = describe_library(library)
    if as_json:
        facts = {name: {"index": asdict(info), "report": seen and asdict(seen)} for name, (info, seen) in found.items()}
        click.echo(json.dumps({"library": str(library), "indexes": facts}, ensure_ascii=False))
        return
    for name, (info, seen) in found.items():
        click.echo("\n".join(describe_report(name, seen) if seen else describe_index(library, name, info)))


@index.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option(
    "--shard-size", type=click.IntRange(1), default=4096, show_default=True, metavar="N", help="Rows of a full shard."
)
@_JSON
def compact(library: Path, shard_size: int, as_json: bool) -> None:
    """Join LIBRARY's small shards, of which every add leaves one, into full ones.

    Nothing is encoded, and rows and indexes stay as they are. Imported shards are not mixed with others. What has
    LIBRARY open must open it again.
    """
    from unprompt.index.compact import compact_library

    done = compact_library(library, shard_size)
    if as_json:
        click.echo(json.dumps({"library": str(library), **asdict(done)}, ensure_ascii=False))
        return
    if done.shards_after == done.shards_before:
        click.echo(f"{library}: {done.shards_before:,} shards, none of them to be joined")
        return
    click.echo(
        f"{library}: {done.shards_before:,} shards are now {done.shards_after:,}, "
        f"{done.bytes_before / 1e6:,.1f} MB are {done.bytes_after / 1e6:,.1f} MB; "
        f"{done.rows_moved:,} rows were written anew, the indexes are as they were"
    )


def measured_indexes(library: Path, names: Collection[str]) -> dict[str, IndexReport]:
    """The reports of those indexes of a library that were measured as they are now."""
    from unprompt.index.rebuild import describe_library

    return {name: seen for name, (_, seen) in describe_library(library).items() if seen is not None and name in names}


def describe_index(library: Path, name: str, info: IndexInfo) -> list[str]:
    """Lines about an index that was not measured."""
    parameters = f" ({info.parameters})" if info.parameters else ""
    lines = [f"{name} index: {info.factory}{parameters}, {info.rows:,} rows"]
    exact = ["  exact search, recall 1"] if info.factory == "Flat" else []
    return [*lines, *exact, f"  speed was not measured: unprompt index tune {library}"]


def describe_report(name: str, report: IndexReport) -> list[str]:
    """Lines about an index that was."""
    figures = report.figures
    parameters = f" ({report.parameters})" if report.parameters else ""
    built = "" if report.seconds is None else f", built in {report.seconds:.1f} s"
    return [
        f"{name} index: {report.factory}{parameters}, {report.rows:,} rows",
        f"  size      {report.bytes / 1e6:,.1f} MB, {report.bytes_per_vector:,.0f} bytes a vector{built}",
        f"  recall    @10 {figures.recall_10:.3f}, @100 {figures.recall_100:.3f} "
        f"against exact search for {figures.queries} held-out queries",
        f"  speed     {figures.p50_ms:.2f} ms a query, {figures.qps_single:,.0f} a second one by one, "
        f"{figures.qps_batched:,.0f} batched ({report.threads} threads)",
        f"  why       {report.reason}",
    ]


def _names(which: str) -> tuple[str, ...]:
    return ("image", "text") if which == "both" else (which,)


def _print_reports(library: Path, reports: Mapping[str, IndexReport], as_json: bool) -> None:
    if as_json:
        facts = {name: asdict(report) for name, report in sorted(reports.items())}
        click.echo(json.dumps({"library": str(library), "indexes": facts}, ensure_ascii=False))
        return
    for name, report in sorted(reports.items()):
        click.echo("\n".join(describe_report(name, report)))
