"""Measures the packaged captioners on pictures of prompts they never saw, alone and told the nearest prompts.

    python benchmarks/captioners.py --data DIR --cache DIR --out figures.json

One picture of each file of the split, a fixed sample of them. Neighbours are prompts of the training split, found by
the shipped `starter` among all its pictures, whose embeddings are kept in the cache folder. Each row of the table
is a captioner and what it is told: nothing, neighbours that it attends to, or neighbours that are mixed into what it
writes, as its card says. None that the package brings attends to any: give ``--captioner FOLDER`` for one that was
trained so. Captions a second are of the processor's own time, on one thread, from the backbone's grids.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from unprompt.builders.sources import open_source
from unprompt.captioners.captioner import TrainedCaptioner, Writing
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.data.pairs import Pair, file_numbers, read_pairs
from unprompt.captioners.registry import packaged
from unprompt.captioners.sampling import loops
from unprompt.captioners.training.pictures import embed_pictures
from unprompt.encoders import load_encoder
from unprompt.encoders.training.data import SETS, SPLITS
from unprompt.evaluation.bootstrap import bootstrap, compare
from unprompt.evaluation.metrics import Scores, load_metric
from unprompt.pictures.opening import open_picture, read_bytes
from unprompt.systems.weights import trained_folder

EXISTING = click.Path(exists=True, path_type=Path)
TOLD = 8
"""Neighbours of each picture."""
BATCH = 32
NEAREST = "nearest prompt"
METRICS = ("bleu", "bleu-thesis", "meteor", "bertscore", "sentence-cosine", "repetition-2")
CORPUS = ("bleu", "bleu-thesis")
"""These are 0 to 100, the others 0 to 1."""


@dataclass(frozen=True)
class Sample:
    """The pictures that are captioned: N of them."""

    prompts: list[str]
    groups: list[str]
    grids: torch.Tensor
    """(N, 49, 1280) float32."""
    neighbours: list[list[str]]


@dataclass(frozen=True)
class Row:
    """One captioner, told one thing.

    Attributes:
        captioner: its name.
        neighbours: what it was told.
        figures: metric -> (value, low, high), the ends of a 95% interval from resampling groups of prompts.
        loops: captions in which some piece stands three times in a row.
        distinct: how many different captions there are.
        per_second: captions a second of processor time.
    """

    captioner: str
    neighbours: str
    figures: dict[str, tuple[float, float, float]]
    loops: int
    distinct: int
    per_second: float


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for the pictures' embeddings.")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--sample", default=500, show_default=True, help="Pictures, one of each file; 0 takes all files.")
@click.option("--num-beams", default=5, show_default=True)
@click.option("--captioner", "names", multiple=True, help="Only this one, by name or folder; may be repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for figures and captions.")
def main(
    data: Path, cache: Path, split: str, sample: int, num_beams: int, names: Sequence[str], out: Path | None
) -> None:
    """Print the table of docs/captioners.md, and write its figures as JSON."""
    torch.set_num_threads(1)
    pairs = read_pairs(entry for name in SETS for entry in open_source(str(data / name), "pairs"))
    folders = [folder_of(name) for name in names or packaged()]
    loaded = {folder: TrainedCaptioner.load(folder) for folder in folders}
    chosen = choose(pairs, split, sample)
    taken = prepare(pairs, chosen, next(iter(loaded.values())), cache)
    nearest = [told[0] if told else "" for told in taken.neighbours]
    rows = [Row(NEAREST, "", measure(nearest, taken), 0, len(set(nearest)), 0.0)]
    captions = {NEAREST: nearest}
    for folder, captioner in loaded.items():
        name = captioner.name
        for told, writer in ways(captioner, folder):
            texts, seconds = write(writer, taken, bool(told), num_beams)
            looped = sum(loops(ids[1:-1]) for ids in captioner.tokenizer.encode(texts, 999))
            row = Row(name, told, measure(texts, taken), looped, len(set(texts)), len(texts) / seconds)
            rows.append(row)
            captions[f"{name}, {told or 'alone'}"] = texts
            click.echo(line(row), err=True)
    click.echo(markdown(rows))
    click.echo("\n".join(paired(captions, taken.prompts, taken.groups)))
    if out:
        facts: dict[str, Any] = {"split": split, "pictures": len(chosen), "groups": len(set(taken.groups))}
        facts |= {"num_beams": num_beams, "rows": [asdict(row) for row in rows]}
        facts |= {"prompts": taken.prompts, "captions": captions}
        out.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def folder_of(name: str) -> Path:
    """The checkpoint of a packaged captioner, or a folder as it is given."""
    folder = trained_folder(name)
    if folder is None:
        raise click.BadParameter(f"no captioner {name!r}: give a folder, or one of {', '.join(packaged())}")
    return folder


def choose(pairs: Sequence[Pair], split: str, sample: int) -> list[int]:
    """Rows of one picture of each file of a split, in an order that no source decides, the first `sample` of them."""
    rows = np.array([i for i, pair in enumerate(pairs) if pair.split == split], dtype=np.int64)
    files = file_numbers([pairs[i] for i in rows])
    one_of_file = rows[np.unique(files, return_index=True)[1]]
    order = np.random.default_rng(0).permutation(one_of_file)
    return [int(row) for row in (order[:sample] if sample else order)]


def prepare(pairs: Sequence[Pair], chosen: Sequence[int], captioner: TrainedCaptioner, cache: Path) -> Sample:
    """Looks at the chosen pictures, and finds their neighbours among the training split."""
    library = [pair for pair in pairs if pair.split == "train"]
    asked = [pairs[i] for i in chosen]
    encoder = load_encoder("starter")
    embeddings = embed_pictures([*library, *asked], encoder, cache)
    prompts = list(dict.fromkeys(pair.prompt for pair in library))
    # Only the training split is searched, whatever the split that is asked for.
    told = find_neighbours([*library, *(replace(pair, split="test") for pair in asked)], embeddings, TOLD, no_texts)
    nearest = told.nearest[len(library) :]
    neighbours = [[prompts[i] for i in row if i >= 0] for row in nearest]
    grids = [captioner.grids(images) for images in in_batches([decode(pair) for pair in asked])]
    return Sample([p.prompt for p in asked], [p.group for p in asked], torch.cat(grids), neighbours)


def no_texts(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Neighbours are told as texts here, and each captioner embeds them itself."""
    return np.zeros((len(texts), 1), dtype=np.float32)


def decode(pair: Pair) -> Image.Image:
    """The picture of a pair."""
    assert pair.picture is not None
    return open_picture(pair.picture, read_bytes(pair.picture))


def in_batches(images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
    """`BATCH` at a time."""
    yield from (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def ways(captioner: TrainedCaptioner, folder: Path) -> Iterator[tuple[str, TrainedCaptioner]]:
    """What a captioner can be told, and the captioner that is told so."""
    yield "", captioner
    attended = ["attended"] if captioner.card.neighbours else []
    if attended:
        yield "attended", TrainedCaptioner.load(folder, writing=Writing(neighbour_share=0.0))
    if captioner.mixture.share:
        yield " and ".join([*attended, f"mixed {captioner.mixture.share:g}"]), captioner


def write(captioner: TrainedCaptioner, sample: Sample, told: bool, num_beams: int) -> tuple[list[str], float]:
    """The best caption of each picture, and the seconds of processor time that they took."""
    texts, started = [], time.process_time()
    for start in range(0, len(sample.prompts), BATCH):
        part = slice(start, start + BATCH)
        neighbours = sample.neighbours[part] if told else None
        found = captioner.caption_grids(sample.grids[part], num_beams, neighbours=neighbours)
        texts += [candidates[0].prompt if candidates else "" for candidates in found]
    return texts, time.process_time() - started


def measure(texts: Sequence[str], sample: Sample) -> dict[str, tuple[float, float, float]]:
    """Every metric with its interval."""
    figures = {}
    for name in METRICS:
        scores: Scores = load_metric(name)(texts, sample.prompts)
        interval = bootstrap(scores, groups=sample.groups)
        figures[name] = (interval.value, interval.low, interval.high)
    return figures


def paired(captions: dict[str, list[str]], prompts: Sequence[str], groups: Sequence[str]) -> Iterator[str]:
    """How far each row's sentence cosine is above the nearest prompt's, and above its captioner's alone."""
    scores = {key: load_metric("sentence-cosine")(texts, prompts) for key, texts in captions.items()}
    for key in scores:
        alone = f"{key.partition(',')[0].removesuffix('-neighbours')}, alone"
        for other in dict.fromkeys((NEAREST, alone)):
            if other in scores and other != key:
                found = compare(scores[key], scores[other], groups=groups, permutations=1000)
                low, high = found.interval.low, found.interval.high
                yield f"{key} - {other}: {found.difference:+.3f} [{low:+.3f}, {high:+.3f}], p = {found.p:.3f}"


def markdown(rows: Sequence[Row]) -> str:
    """All rows as a table."""
    head = [
        "Captioner",
        "Neighbours",
        "BLEU-4",
        "BLEU-4, thesis's words",
        "METEOR",
        "BERTScore",
        "Sentence cosine [95%]",
    ]
    head += ["Repetition", "Loops", "Distinct", "Captions/s"]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(line, rows)])


def line(row: Row) -> str:
    """One row of the table."""
    value = {name: f"{figure[0]:.1f}" if name in CORPUS else f"{figure[0]:.3f}" for name, figure in row.figures.items()}
    _, low, high = row.figures["sentence-cosine"]
    cells = [f"`{row.captioner}`" if row.per_second else row.captioner, row.neighbours]
    cells += [value["bleu"], value["bleu-thesis"], value["meteor"], value["bertscore"]]
    cells += [f"{value['sentence-cosine']} [{low:.3f}, {high:.3f}]", value["repetition-2"], str(row.loops)]
    cells += [str(row.distinct), f"{row.per_second:.0f}" if row.per_second else ""]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
