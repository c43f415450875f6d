"""Trains a tiny captioner slowly, for tests that kill it: python slow_train.py PICTURES OUT CACHE"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from tiny_captioner import colour_pairs, tiny_config, tiny_pictures
from unprompt.captioners.train import train_captioner

SETTINGS = ("epochs=5", "batch=8", "save_every=3", "patience=5")
PICTURES = 60


def train(pictures: Path, out: Path, cache: Path, pause: float = 0.0) -> dict[str, object]:
    """The run that is killed and resumed; ``pause`` is in seconds a step."""
    torch.set_num_threads(1)
    config = tiny_config("transformer", *SETTINGS)
    pairs, prepared = tiny_pictures(colour_pairs(pictures, PICTURES), cache, config)
    return train_captioner("transformer", pairs, prepared, config, out, progress=lambda *_: time.sleep(pause))


if __name__ == "__main__":
    print("started", flush=True)
    train(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), pause=0.03)
    print("finished", flush=True)
