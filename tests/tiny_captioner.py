"""A grid backbone, pairs and configurations so small that a captioner is trained on them in a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes import FakePreprocess, colour_folder
from unprompt.captioners.config import TrainConfig, load_config
from unprompt.captioners.data.pairs import Pair, read_pairs
from unprompt.captioners.training.pictures import Pictures, cache_pictures
from unprompt.types import Entry, Picture, Pixels, Preprocess

TOKENS, WIDTH = 4, 12
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "lstm": {"memory_dim": 16, "embedding_dim": 16, "hidden_dim": 16, "attention_dim": 16, "dropout": 0.1},
    "transformer": {"dim": 32, "heads": 2, "feedforward": 64, "dropout": 0.1},
    "prompt-lm": {"layers": 1, "heads": 2, "width": 16, "dropout": 0.1},
}


class TinyGrid:
    """8x8 pixels as four quarters of 12 numbers: the mean colour of each of a quarter's own quarters."""

    name = "tiny"

    def __init__(self, salt: str = "") -> None:
        self.fingerprint = f"tiny{salt}".ljust(64, "0")
        self.preprocess: Preprocess = FakePreprocess()
        self.encoded = 0

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N, 8, 8, 3) uint8 -> (N, 4, 12) float32; `encoded` counts what went through."""
        self.encoded += len(pixels)
        cells = pixels.reshape(-1, 2, 2, 2, 2, 2, 2, 3).astype(np.float32) / 255 - 0.5
        return cells.mean(axis=(3, 6)).transpose(0, 1, 3, 2, 4, 5).reshape(-1, TOKENS, WIDTH)


def colour_pairs(folder: Path, total: int = 60) -> list[Pair]:
    """Colour pictures, with the prompts that `colour_folder` gives them; ungrouped, for there are only 32 prompts."""
    entries = [Entry(prompt, Picture(str(path))) for path, prompt in colour_folder(folder, total)]
    return read_pairs(entries, split="ungrouped-90-5-5")


def tiny_config(name: str, *settings: str, **options: object) -> TrainConfig:
    """A configuration of few steps: settings as on the command line, and options of the model."""
    model = [f"model.{key}={value}" for key, value in {**SHAPES[name], **options}.items()]
    small = ["data.max_tokens=16", "tokenizer.vocabulary=400", "batch=16", "epochs=3", "optimizer.warmup=2"]
    return load_config(None, [*small, "optimizer.learning_rate=0.01", *model, *settings])


def tiny_pictures(pairs: list[Pair], cache: Path, config: TrainConfig) -> tuple[list[Pair], Pictures]:
    """Features of the tiny backbone, without neighbours."""
    pairs, features, rows = cache_pictures(pairs, TinyGrid(), cache, config)
    return pairs, Pictures(features, rows, "tiny")
