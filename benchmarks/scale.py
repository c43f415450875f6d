"""Builds and searches against autofaiss 2.18, both sides in turn; our own growth from 10,000 rows to a million; and
every kind of index that we choose from, one after the other.

    python benchmarks/scale.py --autofaiss-python DIR/bin/python --rows 100000 --rows 1000000 --out figures.json
    python benchmarks/scale.py growth --plot growth.png --out growth.json
    python benchmarks/scale.py kinds --rows 100000 --index "HNSW32,SQfp16" --index "IVF1024,SQ8" --out kinds.json

autofaiss runs in an environment of its own, for it pins numpy 1.26, which later releases of pyarrow refuse; pillow is
what `unprompt.types` needs there, for both sides are measured by the same code. Make it so:

    python3.11 -m venv DIR && DIR/bin/pip install autofaiss==2.18.0 "pyarrow<20" pillow

Both sides get the same files, the same threads and the same memory limit, and choose an index by themselves. Search
parameters are then searched for, by the same code on both sides, so that both reach the same recall@10 and recall@100
on one half of the queries; what is printed was measured with the other half. No query is in the corpus. The index that
autofaiss tuned by its own rule (all that fits 10 ms a query) is measured as well. The time of a build is that of the
whole command on both sides: choosing, training, filling, tuning, measuring and writing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from scale_vectors import QUERIES, read_corpus, write_corpus
from scale_worker import TRUTH

HERE = Path(__file__).parent
WORKER = HERE / "scale_worker.py"
QUERY_COUNT = 1000
Figures = dict[str, Any]


def run(python: str, command: str, folder: Path, index: Path, options: Figures) -> Figures:
    """Runs one worker and returns what it prints last."""
    threads = str(options["threads"])
    paths = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while others wait for a core slow both sides down
    arguments = [python, str(WORKER), command, str(folder), str(index), json.dumps(options)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{command} failed: {done.stderr.strip().splitlines()[-1:]}")
    found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def prepare(folder: Path, rows: int, dim: int, queries: int) -> None:
    """Writes the corpus, the queries, and what exact search finds for them."""
    from unprompt.index.truth import ground_truth

    if (folder / TRUTH).exists():
        return
    write_corpus(folder, rows, dim, queries)
    truth = ground_truth(lambda: read_corpus(folder, 50_000), np.load(folder / QUERIES))
    np.savez(folder / TRUTH, rows=truth.rows, scores=truth.scores)


def compare(folder: Path, rows: int, options: Figures, autofaiss: str, indexes: tuple[str, ...]) -> list[Figures]:
    """Both sides at one size: the lines of a table."""
    options = {**options, "rows": rows}
    prepare(folder, rows, options["dim"], QUERY_COUNT)
    table = []
    for name in indexes:
        file = folder / "unprompt.index"
        built = run(sys.executable, "build-unprompt", folder, file, {**options, "index": name})
        table.append(line("unprompt", rows, built, run(sys.executable, "measure", folder, file, options)))
        click.echo(show(table[-1]))
    file = folder / "autofaiss.index"
    built = run(autofaiss, "build-autofaiss", folder, file, options)
    table.append(line("autofaiss", rows, built, run(autofaiss, "measure", folder, file, options)))
    click.echo(show(table[-1]))
    own = json.loads((folder / "autofaiss.index.json").read_text())["index_param"]
    if own:
        mine = {**options, "parameters": own}
        table.append(line("autofaiss, its own parameters", rows, built, run(autofaiss, "measure", folder, file, mine)))
        click.echo(show(table[-1]))
    return table


def line(side: str, rows: int, built: Figures, measured: Figures) -> Figures:
    return {
        "side": side,
        "rows": rows,
        **measured,
        "factory": built["factory"],
        "reason": built["reason"],
        "build_s": built["seconds"],
        "build_cpu_s": built["cpu_s"],
        "build_peak_mb": built["peak_mb"],
        "made_s": built.get("made_s"),
        "tuned_recall_10": built.get("tuned_recall_10"),
    }


def show(found: Figures) -> str:
    """A row of a Markdown table."""
    cells = [
        found["side"],
        f"{found['rows']:,}",
        f"{found['factory']} ({found['parameters']})" if found["parameters"] else found["factory"],
        f"{found['recall_10']:.3f} / {found['recall_100']:.3f}",
        f"{found['build_s']:.1f}",
        f"{found['build_cpu_s']:.1f}",
        f"{found['build_peak_mb']:,.0f}",
        f"{found['file_mb']:,.0f}",
        f"{found['resident_mb']:,.0f}",
        f"{found['p50_ms']:.2f}",
        f"{found['qps_single']:,.0f}",
        f"{found['qps_batched']:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    *("side", "rows", "index", "recall@10 / @100", "build s", "its CPU s", "build peak MB", "file MB", "resident MB"),
    *("p50 ms", "QPS single", "QPS batched"),
)
HEAD = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|"


@click.group(invoke_without_command=True)
@click.option("--autofaiss-python", help="Python of the environment with autofaiss==2.18.0.")
@click.option("--rows", multiple=True, type=int, default=(100_000, 1_000_000), show_default=True)
@click.option("--dim", default=512, show_default=True)
@click.option("--threads", default=4, show_default=True)
@click.option("--recall", default=0.95, show_default=True, help="Recall@10 that both sides are tuned to.")
@click.option("--memory", default="4GB", show_default=True, help="Limit for both sides.")
@click.option("--latency", help="Latency goal for our choice, such as 1ms.")
@click.option("--index", "indexes", multiple=True, default=("auto",), show_default=True, help="Ours; may be repeated.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the vectors here, or use those that are here.")
@click.option("--out", type=click.Path(path_type=Path))
@click.pass_context
def main(
    context: click.Context,
    /,
    autofaiss_python: str | None,
    rows: tuple[int, ...],
    indexes: tuple[str, ...],
    work: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Build and search against autofaiss."""
    if context.invoked_subcommand:
        return
    if not autofaiss_python:
        raise click.UsageError("name the Python of an environment with autofaiss: --autofaiss-python")
    click.echo(HEAD)
    table: list[Figures] = []
    for size in rows:
        with tempfile.TemporaryDirectory() as folder:
            options["mapped"] = True
            at = work / f"{size}x{options['dim']}" if work else Path(folder)
            table += compare(at, size, options, autofaiss_python, indexes)
    if out:
        out.write_text(json.dumps({"options": options, "table": table}, indent=1) + "\n")


@main.command()
@click.option("--rows", multiple=True, type=int, default=(10_000, 31_623, 100_000, 316_228, 1_000_000))
@click.option("--dim", default=512, show_default=True)
@click.option("--threads", default=4, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it to this file; needs matplotlib.")
@click.option("--out", type=click.Path(path_type=Path))
def growth(rows: tuple[int, ...], dim: int, threads: int, plot: Path | None, out: Path | None) -> None:
    """Measure `--index auto` from 10,000 rows to a million."""
    click.echo(HEAD)
    table = []
    for size in rows:
        with tempfile.TemporaryDirectory() as name:
            folder, file = Path(name), Path(name) / "unprompt.index"
            options: Figures = {"rows": size, "dim": dim, "threads": threads, "recall": 0.95, "mapped": True}
            prepare(folder, size, dim, QUERY_COUNT)
            built = run(sys.executable, "build-unprompt", folder, file, {**options, "index": "auto"})
            table.append(line("unprompt", size, built, run(sys.executable, "measure", folder, file, options)))
            click.echo(show(table[-1]))
    if out:
        out.write_text(json.dumps(table, indent=1) + "\n")
    if plot:
        draw(table, plot)


@main.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--dim", default=512, show_default=True)
@click.option("--threads", default=4, show_default=True)
@click.option("--recall", default=0.95, show_default=True, help="Recall@10 that each is tuned to.")
@click.option("--index", "indexes", multiple=True, help="May be repeated.  [default: every kind but Flat]")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the vectors here, or use those that are here.")
@click.option("--out", type=click.Path(path_type=Path))
def kinds(
    rows: int, dim: int, threads: int, recall: float, indexes: tuple[str, ...], work: Path | None, out: Path | None
) -> None:
    """Rebuild the index of one library as each kind in turn, as `unprompt index rebuild` does.

    A build tunes with rows of the library; what is measured are queries that it does not hold, with the parameters that
    the build found.
    """
    from unprompt.index.choice import candidates

    factories = indexes or tuple(kind.factory for kind in candidates(rows, dim) if kind.factory != "Flat")
    options: Figures = {"rows": rows, "dim": dim, "threads": threads, "recall": recall, "mapped": True}
    click.echo(HEAD)
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder, library = work / f"{rows}x{dim}" if work else Path(name), Path(name) / "library"
        prepare(folder, rows, dim, QUERY_COUNT)
        run(sys.executable, "write-library", folder, library, options)
        for factory in factories:
            built = run(sys.executable, "rebuild", folder, library, {**options, "index": factory})
            found = {**options, "parameters": built["parameters"]}
            measured = run(sys.executable, "measure", folder, library / "image.index", found)
            table.append(line("unprompt", rows, built, measured))
            click.echo(show(table[-1]))
            if out:
                out.write_text(json.dumps({"options": options, "table": table}, indent=1) + "\n")


def draw(table: list[Figures], file: Path) -> None:
    """Draws build time, size and latency over rows, both axes logarithmic."""
    from importlib import import_module

    import_module("matplotlib").use("Agg")
    plots = import_module("matplotlib.pyplot")
    measures = [("build_cpu_s", "build, s of CPU"), ("file_mb", "index, MB"), ("p50_ms", "one query, ms (p50)")]
    figure, axes = plots.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, (name, label) in zip(axes, measures, strict=True):
        axis.loglog([found["rows"] for found in table], [found[name] for found in table], "-o", color="black")
        axis.set(xlabel="rows", title=label)
        axis.margins(x=0.15, y=0.15)
    for found in table:
        place = {"xytext": (6, -10), "textcoords": "offset points", "fontsize": 6}
        axes[0].annotate(found["factory"], (found["rows"], found["build_cpu_s"]), **place)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
