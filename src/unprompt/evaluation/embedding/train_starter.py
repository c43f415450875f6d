"""Trains the packaged head: ``python -m unprompt.evaluation.embedding.train_starter --data DIR --out FILE``."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from unprompt.encoders import starter_backbone
from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.starter_head import load_head
from unprompt.encoders.training.build import INPUTS, SIDE, embed
from unprompt.encoders.training.data import Example, load_examples
from unprompt.encoders.training.features import Features, cached_features
from unprompt.errors import UnpromptError
from unprompt.evaluation.embedding.features import BACKBONE_INPUTS, Looked, read_inputs
from unprompt.evaluation.embedding.train import Pairs, Recipe, Source, fit
from unprompt.evaluation.metrics.sentence_cosine import embed_distinct
from unprompt.types import Embeddings

EXISTING = click.Path(exists=True, path_type=Path)


@dataclass(frozen=True, slots=True)
class Pictures:
    """All pictures of the four sets, with the raw features of the starter's backbone."""

    examples: Sequence[Example]
    raw: Features

    def rows(self, split: str) -> list[int]:
        """The pictures of one split."""
        return [row for row, example in enumerate(self.examples) if example.split == split]

    def look(self, head: MemoryHead, rows: Sequence[int]) -> Looked:
        """Embeddings by a starter head, and features for an embedding head."""
        wanted = np.asarray(rows)
        raw = {name: torch.from_numpy(self.raw[name][wanted].astype(np.float32)) for name in BACKBONE_INPUTS}
        embeddings = np.ascontiguousarray(embed(head, self.raw, rows).numpy())
        return Looked(embeddings, read_inputs(raw, BACKBONE_INPUTS).numpy())

    def targets(self, rows: Sequence[int]) -> Embeddings:
        """(N, 384) sentence embeddings of the prompts."""
        return embed_distinct([self.examples[row].prompt for row in rows])


def load_pictures(data: Path, cache: Path) -> Pictures:
    """Reads the four sets; features are computed once and kept in `cache`, as when the starter is trained.

    Raises:
        UnpromptError: a set or a weights package is missing.
    """
    examples = load_examples(data)
    preprocessing = dataclasses.replace(starter_backbone.PREPROCESSING, size=(SIDE, SIDE))
    names = tuple(dict.fromkeys((*INPUTS, *BACKBONE_INPUTS, "logits")))
    return Pictures(examples, cached_features(examples, names, preprocessing, cache))


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--starter", type=EXISTING, required=True,
              help="A starter head that learnt from the training split alone: train_starter --choose.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write (safetensors).")
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/starter"), show_default=True,
              help="Folder for the backbone's features; about 0.7 GB.")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
def main(data: Path, starter: Path, out: Path, cache: Path, seed: int) -> None:
    """Train the starter's embedding head on the training split, and choose its mixing on the development split.

    Neighbours are chosen with a starter that has not seen the development split either: the packaged one has.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        report = run(load_pictures(data, cache), load_head(starter)[0], out, Recipe(seed=seed))
    except UnpromptError as error:
        sys.exit(f"error: {error}")
    click.echo(json.dumps(report, indent=1))


def run(pictures: Pictures, starter: MemoryHead, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Trains, chooses and writes; see `fit` for what it returns."""
    seen, unseen = (
        Pairs(pictures.look(starter, rows), pictures.targets(rows)) for rows in map(pictures.rows, ("train", "dev"))
    )
    return fit(seen, unseen, Source("starter", starter_backbone.SHA256, BACKBONE_INPUTS), recipe, out)


if __name__ == "__main__":
    main()
