"""Imports embeddings slowly, for a test that kills it: python slow_import.py FOLDER LIBRARY"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import FakeEncoder
from unprompt.builders.build import build_library
from unprompt.builders.sources import open_source

SHARD_SIZE = 16

if __name__ == "__main__":
    print("started", flush=True)
    build_library(
        [open_source(sys.argv[1])],
        sys.argv[2],
        FakeEncoder(),
        shard_size=SHARD_SIZE,
        workers=0,
        progress=lambda _: time.sleep(0.002),
    )
    print("finished", flush=True)
