"""Measures predicted sentence embeddings on unseen prompts: the packaged head, neighbours, and their mix.

    python benchmarks/embedding.py --data ../shared/data

Kaggle's score, mean cosine with all-MiniLM-L6-v2's embedding of the true prompt, on the test split of the four sets;
prompts of the same words, and the quarters of a grid, are on one side of it. Neighbours come from the training split's
pictures. Nothing is chosen here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from unprompt.encoders.starter import HEAD_PATH
from unprompt.encoders.starter_head import load_head
from unprompt.encoders.training.data import SETS, SPLITS
from unprompt.evaluation.bootstrap import bootstrap, compare
from unprompt.evaluation.embedding.head import load_embedding_head
from unprompt.evaluation.embedding.neighbours import mix
from unprompt.evaluation.embedding.predict import apply_head
from unprompt.evaluation.embedding.train import Corpus
from unprompt.evaluation.embedding.train_starter import Pictures, load_pictures
from unprompt.evaluation.metrics.scores import Scores, mean_scores
from unprompt.evaluation.metrics.sentence_cosine import NAME, NOTE, cosines
from unprompt.evaluation.splits import group_key
from unprompt.types import Embeddings

EXISTING = click.Path(exists=True, path_type=Path)
MIX = "mix"
PARTS = ("head", "neighbours")


@click.command()
@click.option("--data", type=EXISTING, default=Path("../shared/data"), show_default=True,
              help="Folder that holds the four sets.")  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/starter"), show_default=True,
              help="Folder for the backbone's features; computing them takes about 20 minutes, once.")  # fmt: skip
@click.option("--starter", type=EXISTING, default=HEAD_PATH, help="A starter head, instead of the packaged one.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(data: Path, split: str, cache: Path, starter: Path, out: Path | None) -> None:
    """Print the figures of the model card."""
    torch.set_num_threads(1)
    pictures = load_pictures(data, cache)
    rows = pictures.rows(split)
    predicted = predict(pictures, rows, starter)
    targets = pictures.targets(rows)
    scores = {name: mean_scores(NAME, cosines(values, targets), NOTE) for name, values in predicted.items()}
    sets = np.array([pictures.examples[row].set for row in rows])
    groups = np.array([group_key(pictures.examples[row].prompt) for row in rows])
    report = {"split": split, **table(scores, sets, groups), "differences": differences(scores, groups)}
    show(report)
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def predict(pictures: Pictures, rows: Sequence[int], starter: Path) -> dict[str, Embeddings]:
    """What every system says of some pictures: (N, 384) each."""
    encoder, head = load_head(starter)[0], load_embedding_head()
    train = pictures.rows("train")
    corpus = Corpus(pictures.look(encoder, train).embeddings, pictures.targets(train))
    looked, mixing = pictures.look(encoder, rows), head.config.mixing
    said = apply_head(head, looked)
    near = corpus.regress(looked.embeddings, mixing.k, mixing.temperature)
    constant = corpus.values.mean(axis=0, keepdims=True)
    return {
        "one constant": np.repeat(constant / np.linalg.norm(constant), len(rows), axis=0),
        "starter alone": looked.embeddings,
        "nearest prompt": corpus.regress(looked.embeddings, 1, mixing.temperature),
        "neighbours": near,
        "head": said,
        MIX: mix(said, near, mixing.weight),
    }


def table(scores: Mapping[str, Scores], sets: NDArray[Any], groups: NDArray[Any]) -> dict[str, Any]:
    """Overall and per set: value and 95% interval, by bootstrap over prompts."""
    parts = {"all": np.ones(len(sets), dtype=bool), **{name: sets == name for name in SETS}}
    found: dict[str, Any] = {"pictures": {part: int(chosen.sum()) for part, chosen in parts.items()}, "cosine": {}}
    for system, whole in scores.items():
        found["cosine"][system] = {}
        for part, chosen in parts.items():
            interval = bootstrap(whole.take(chosen), groups=groups[chosen])
            found["cosine"][system][part] = [interval.value, interval.low, interval.high]
    return found


def differences(scores: Mapping[str, Scores], groups: NDArray[Any]) -> dict[str, Any]:
    """The mix against each of its parts: paired, by prompts."""
    found = {}
    for part in PARTS:
        comparison = compare(scores[MIX], scores[part], groups=groups)
        interval = comparison.interval
        found[part] = {"difference": interval.value, "low": interval.low, "high": interval.high, "p": comparison.p}
    return found


def show(report: Mapping[str, Any]) -> None:
    """Prints a Markdown table and the differences."""
    parts = report["pictures"]
    click.echo("| System | " + " | ".join(f"{part} ({count:,})" for part, count in parts.items()) + " |")
    click.echo("|---" * (len(parts) + 1) + "|")
    for system, found in report["cosine"].items():
        cells = (f"{value:.4f} [{low:.4f}, {high:.4f}]" for value, low, high in (found[part] for part in parts))
        click.echo(f"| {system} | " + " | ".join(cells) + " |")
    for part, found in report["differences"].items():
        low, high = found["low"], found["high"]
        click.echo(f"mix - {part}: {found['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p = {found['p']:.4f}")


if __name__ == "__main__":
    main()
