"""Builds a library slowly, for tests that kill it: python slow_build.py PICTURES LIBRARY WORKERS"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import FakeEncoder
from unprompt.builders.build import build_library
from unprompt.types import Embeddings, Entry, Picture

SHARD_SIZE, BATCH_SIZE = 8, 4


class SlowEncoder(FakeEncoder):
    """Takes 15 ms a batch, so that there are moments to be killed at."""

    def encode_images(self, images: Sequence[Any]) -> Embeddings:
        time.sleep(0.015)
        return super().encode_images(images)


def read_entries(folder: Path) -> list[Entry]:
    return [
        Entry(path.with_suffix(".txt").read_text().strip(), Picture(str(path))) for path in sorted(folder.glob("*.png"))
    ]


if __name__ == "__main__":
    print("started", flush=True)
    build_library(
        [read_entries(Path(sys.argv[1]))],
        sys.argv[2],
        SlowEncoder(),
        shard_size=SHARD_SIZE,
        batch_size=BATCH_SIZE,
        workers=int(sys.argv[3]),
    )
    print("finished", flush=True)
