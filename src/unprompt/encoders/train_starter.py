"""Trains `starter`: ``python -m unprompt.encoders.train_starter --data DIR --prompts FILE --out FILE``."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

from unprompt.encoders import starter_backbone
from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.minilm import TextTower
from unprompt.encoders.starter_backbone import StarterBackbone
from unprompt.encoders.starter_head import load_head, save_head
from unprompt.encoders.training import open_domain
from unprompt.encoders.training.build import INPUTS, SIDE, Recipe, TextSide, embed, standardised, train_head
from unprompt.encoders.training.data import Example, load_examples
from unprompt.encoders.training.evaluate import Texts, evaluate, to_json
from unprompt.encoders.training.features import Features, cached_features
from unprompt.encoders.training.gate import measure_norms
from unprompt.errors import UnpromptError
from unprompt.types import Embeddings

EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--prompts", type=EXISTING, required=True, help="Prompts without pictures: a .jsonl file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write (safetensors).")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/starter"), show_default=True,
              help="Folder for the backbone's features; about 0.5 GB.")  # fmt: skip
@click.option("--figures", type=click.Path(path_type=Path), help="JSON file for the figures.  [default: OUT.json]")
@click.option("--choose", is_flag=True, help="Train on the training split alone, and measure on the development split.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True, help="Threads of torch.")
def main(
    data: Path, prompts: Path, out: Path, cache: Path, figures: Path | None, choose: bool, seed: int, threads: int
) -> None:
    """Train the memory head of the starter encoder, measure it on pictures it has not seen, and write its weights."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        recipe = Recipe(seed=seed, splits=("train",) if choose else ("train", "dev"))
        report = run(data, prompts, out, cache, recipe, "dev" if choose else "test")
    except UnpromptError as error:
        sys.exit(f"error: {error}")
    path = figures or out.with_suffix(".json")
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(f"weights in {out}, figures in {path}")


def run(data: Path, prompts: Path, out: Path, cache: Path, recipe: Recipe, split: str) -> dict[str, object]:
    """Trains and measures; returns the figures, as JSON. See the command's help for the arguments.

    Raises:
        UnpromptError: an input is missing or not valid.

    """
    examples = load_examples(data)
    preprocessing = dataclasses.replace(starter_backbone.PREPROCESSING, size=(SIDE, SIDE))
    features = cached_features(examples, (*INPUTS, "logits"), preprocessing, cache)
    tower = TextTower.load()
    remembered = functools.cache(lambda texts: tower.encode(list(texts)))

    def encode(texts: Sequence[str]) -> Embeddings:
        return remembered(tuple(texts))

    texts = TextSide(encode, open_domain.class_names(), open_domain.load_prompts(prompts))
    class_rows = StarterBackbone.load().network.classifier.weight
    unseen = [i for i, e in enumerate(examples) if e.split == "dev"]
    epochs: list[dict[str, object]] = []

    def watch(head: MemoryHead) -> None:
        queries = np.ascontiguousarray(embed(head, features, unseen).numpy())
        epochs.append(to_json(evaluate(examples, queries, encode, "dev", recipe.splits)))

    watched = {} if "dev" in recipe.splits else {"watch": watch}
    head, curve = train_head(examples, features, class_rows, texts, recipe, preprocessing, **watched)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_head(head, out)
    saved, _ = load_head(out)  # What is measured is what is shipped, rounded to float16.
    measured = measure(saved, examples, features, encode, split, recipe.splits)
    counts = Counter(f"{e.set} {e.split}" for e in examples)
    report = {"recipe": recipe.to_dict(), "pictures": dict(counts), "loss": curve, "dev by epoch": epochs}
    if watched:
        x = standardised(saved, features, torch.tensor(unseen))
        norms = measure_norms(saved, x, [examples[i].set for i in unseen])
        report["norms"] = {name: dataclasses.asdict(norm) for name, norm in norms.items()}
    return {**report, split: measured}


def measure(
    head: MemoryHead, examples: Sequence[Example], features: Features, texts: Texts, split: str, trained: Sequence[str]
) -> dict[str, object]:
    """Prints the figures of one split, and returns them as JSON."""
    queries = embed(head, features, [i for i, e in enumerate(examples) if e.split == split]).numpy()
    measured = evaluate(examples, np.ascontiguousarray(queries), texts, split, trained)
    for name, row in measured.items():
        for metric, figure in row.items():
            click.echo(f"{split} {name:18} {metric:18} {figure}")
    return to_json(measured)


if __name__ == "__main__":
    main()
