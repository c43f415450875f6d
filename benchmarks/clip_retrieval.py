"""Embeds the same pictures with `unprompt build` and with clip-retrieval 2.45.0's `clip_inference`, in turn.

    python benchmarks/clip_retrieval.py --data DIR --python clip-retrieval/bin/python --pictures 2000

clip-retrieval runs in an environment of its own, with every dependency that it names and nothing stood in for. Make it
so, in a folder of your choice:

    python3.11 -m venv clip-retrieval
    clip-retrieval/bin/pip install clip-retrieval==2.45.0 "torch==2.13.0" "setuptools<81"

(`torch` as on our side; open_clip is 2.32 there, for clip-retrieval asks for less than 3; setuptools for
`pkg_resources`. Where torchvision was built for CUDA and torch for CPU, our `ensure_torchvision` lets it be imported
there as well.) DIR holds sets of pictures, each with a ``pairs.jsonl``.

Both sides load one checkpoint of random weights, made once, and get the same batch size, threads, decoding processes
and cores. Two inputs are compared:

- ``files``: a folder of pictures; only pictures are embedded. clip_inference 2.45.0 cannot read texts beside pictures
  there: it looks up ``a.txt`` among the pictures and stops with a KeyError. Ours cannot do without prompts, so every
  picture has the same, which is encoded once.
- ``webdataset``: tars of pictures with their own prompts; both towers run. Theirs computes all 77 positions of every
  text, ours those that a batch's longest text needs.

What is timed is everything but loading and warming the model: reading, decoding, embedding, writing .npy and parquet;
on our side indexes and checksums as well. Loading is printed apart. CPU seconds are of all processes of a side. Both
sides' embeddings, of texts too, are compared picture by picture, also with the mean of all pictures taken away, for
under random weights any two pictures are alike.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
WORKER = HERE / "clip_retrieval_worker.py"
FORMATS = ("files", "webdataset")
SIDES = ("ours", "theirs")
TARS = 4  # clip_inference gives each decoding process whole tars
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux' prctl(2)
EXISTING = click.Path(exists=True, path_type=Path)
Figures = dict[str, Any]


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder of sets of pictures.")
@click.option("--set", "name", default="sd15-artists", show_default=True, help="Which of them.")
@click.option("--python", type=EXISTING, required=True, help="Python that has clip-retrieval 2.45.0.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS, show_default=True)
@click.option("--pictures", default=2000, show_default=True)
@click.option("--model", default="ViT-B-32", show_default=True, help="Architecture of open_clip's.")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True, help="Of each side's model.")
@click.option("--workers", default=2, show_default=True, help="Decoding processes of each side.")
@click.option("--cores", default=2, show_default=True, help="That each side may use.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    data: Path,
    name: str,
    python: Path,
    formats: tuple[str, ...],
    pictures: int,
    model: str,
    batch_size: int,
    rounds: int,
    threads: int,
    workers: int,
    cores: int,
    out: Path | None,
) -> None:
    """Prints a table for docs/benchmarks.md."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # every process started from here inherits it
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    pythons = {"ours": sys.executable, "theirs": str(python.absolute())}  # resolved, it would leave its environment
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = make_checkpoint(model, folder)
        found = write_inputs(data / name, folder, pictures)
        options = {"model": f"open_clip:{model}/{checkpoint}", "batch_size": batch_size, "workers": workers}
        for kind in formats:
            options |= {"format": kind, "input": str(folder / ("files" if kind == "files" else "tars")), "tars": TARS}
            figures.append({"format": kind, "pictures": found, **compare(pythons, folder, options, rounds, threads)})
            click.echo(show(figures[-1]))
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def make_checkpoint(model: str, folder: Path) -> Path:
    """Saves the model with random weights, for both sides to load."""
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch

    torch.manual_seed(0)
    file = folder / "random.pt"
    torch.save(open_clip.create_model(model).state_dict(), file)
    return file


def write_inputs(data: Path, folder: Path, count: int) -> int:
    """Writes the pictures as a folder, all with one prompt, and as tars, each with its own; returns how many."""
    lines = (data / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    (folder / "files").mkdir()
    (folder / "tars").mkdir()
    with ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(folder / "tars" / f"{part}.tar", "w")) for part in range(TARS)]
        for row, pair in enumerate(map(json.loads, lines)):
            source = data / pair["image"]
            if source.suffix != ".webp":
                raise click.ClickException(f"{source} is not webp, which clip_inference is told to look for in tars")
            copy = folder / "files" / f"{row:06d}.webp"
            shutil.copyfile(source, copy)
            copy.with_suffix(".txt").write_text("a picture", encoding="utf-8")
            tar = tars[row * TARS // len(lines)]
            tar.add(copy, copy.name)
            text = pair["prompt"].encode()
            member = tarfile.TarInfo(f"{row:06d}.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return len(lines)


def compare(pythons: dict[str, str], folder: Path, options: Figures, rounds: int, threads: int) -> Figures:
    """Runs both sides in turn, each first in every other round."""
    runs: dict[str, list[Figures]] = {side: [] for side in SIDES}
    found: list[Figures] = []
    for turn in range(rounds):
        outputs = {side: folder / f"{side}-{options['format']}-{turn}" for side in SIDES}
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            runs[side].append(run(pythons[side], side, {**options, "output": str(outputs[side])}, threads))
            click.echo(f"{options['format']} round {turn + 1}, {side}: {json.dumps(runs[side][-1])}", err=True)
        found.append(agreement(outputs["ours"], outputs["theirs"], "img"))
        if options["format"] == "webdataset":
            texts = agreement(outputs["ours"], outputs["theirs"], "text")
            found[-1] |= {f"text_{name}": cosine for name, cosine in texts.items()}
    return {**runs, "agreement": found}


def run(python: str, side: str, options: Figures, threads: int) -> Figures:
    """Runs one side once: seconds and CPU seconds of the work, and of loading."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "TOKENIZERS_PARALLELISM": "false"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    environment |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "NO_ALBUMENTATIONS_UPDATE": "1"}
    before, started = children_cpu(), time.perf_counter()
    # -P: this folder must not be searched for modules, or this file would be taken for the package of its name.
    arguments = [python, "-P", str(WORKER), side, json.dumps(options)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{side} failed: {done.stderr[-2000:]}")
    found: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    found["command_seconds"] = time.perf_counter() - started
    reap()
    found["cpu"] = children_cpu() - before - found["load_cpu"]
    return found


def reap() -> None:
    """Waits for what a side left behind (decoding processes are forked from a server): only then is its CPU counted."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        return


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def agreement(ours: Path, theirs: Path, kind: str) -> Figures:
    """The least cosine of a picture's, or its text's, two embeddings, as they are and with the mean taken away.

    Args:
        ours: what one side wrote.
        theirs: what the other did.
        kind: "img" or "text".

    Raises:
        ClickException: the sides did not embed the same pictures.
    """
    mine, other = read_embeddings(ours, kind), read_embeddings(theirs, kind)
    if mine.keys() != other.keys():
        raise click.ClickException(f"{len(mine)} pictures here and {len(other)} there are not the same")
    left = np.stack([mine[key] for key in sorted(mine)])
    right = np.stack([other[key] for key in sorted(mine)])
    mean = left.mean(axis=0)
    between = cosines(left, np.roll(left, 1, axis=0))
    return {
        "least": float(cosines(left, right).min()),
        "least_centred": float(cosines(left - mean, right - mean).min()),
        "other_pictures": float(between.mean()),
        "other_pictures_centred": float(cosines(left - mean, np.roll(left - mean, 1, axis=0)).mean()),
    }


def cosines(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float64] = (left * right).sum(axis=1) / norms
    return found


def read_embeddings(folder: Path, kind: str) -> dict[str, NDArray[np.float64]]:
    """Embeddings by the stem of the picture's file or member, from the layout that both sides write."""
    import pyarrow.parquet as pq

    found = {}
    for file in sorted(folder.glob(f"{kind}_emb/*.npy")):
        table = folder / "metadata" / file.name.replace(f"{kind}_emb", "metadata").replace(".npy", ".parquet")
        paths = pq.read_table(table, columns=["image_path"]).column(0).to_pylist()
        for path, row in zip(paths, np.load(file, allow_pickle=False), strict=True):
            found[Path(path.rpartition("!")[2]).stem] = row.astype(np.float64)
    return found


def show(figures: Figures) -> str:
    """A row of docs/benchmarks.md."""
    ours, theirs, count = figures["ours"], figures["theirs"], figures["pictures"]

    def ratio(key: str) -> str:
        ratios = sorted(other[key] / mine[key] for mine, other in zip(ours, theirs, strict=True))
        return f"{median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"

    rates = [f"{median(count / run['seconds'] for run in side):.1f}" for side in (theirs, ours)]
    cpu = [f"{1000 * median(run['cpu'] for run in side) / count:.0f} ms" for side in (theirs, ours)]
    agreed = [
        min(cosine for turn in figures["agreement"] for key, cosine in turn.items() if key in (name, f"text_{name}"))
        for name in ("least", "least_centred")
    ]
    cells = [figures["format"], f"{count:,}", *rates, ratio("seconds"), *cpu, ratio("cpu"), ratio("command_seconds")]
    return "| " + " | ".join([*cells, *(f"{value:.5f}" for value in agreed)]) + " |"


if __name__ == "__main__":
    main()
