"""Pictures a second of a whole build against the bare encoder on decoded arrays, in turn in one process.

    python benchmarks/build.py SOURCE [--encoder starter] [--limit 1000] [--rounds 3] [--threads 2] [--workers 2]

The build does everything: listing, reading, hashing, decoding in worker processes, encoding pictures and prompts,
writing shards, building both indexes, checksums. The bare encoder gets the same pictures as arrays in memory, in
batches of the same size. A ratio of 1 means that the encoder never waited.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from unprompt import build_library, load_encoder, open_source
from unprompt.builders.build import BATCH_SIZE
from unprompt.pictures.opening import PictureError, open_picture, read_bytes
from unprompt.types import Encoder, Entry, Pixels


def decoded(entries: Sequence[Entry], encoder: Encoder) -> list[Pixels]:
    arrays = []
    for entry in entries:
        assert entry.picture
        try:
            arrays.append(encoder.preprocess(open_picture(entry.picture, read_bytes(entry.picture))))
        except PictureError as error:
            raise SystemExit(f"{error}: give a source whose pictures can all be read") from None
    return arrays


def time_encoder(encoder: Encoder, arrays: Sequence[Pixels]) -> float:
    started = time.perf_counter()
    for start in range(0, len(arrays), BATCH_SIZE):
        encoder.encode_images(arrays[start : start + BATCH_SIZE])
    return len(arrays) / (time.perf_counter() - started)


def time_build(encoder: Encoder, entries: Sequence[Entry], workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        report = build_library([entries], Path(folder) / "timed.library", encoder, workers=workers)
    assert report.pictures == len(entries), report.skipped
    return report.pictures / report.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--limit", type=int, default=1000, help="pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the encoder")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    encoder = load_encoder(arguments.encoder)
    found = (entry for entry in open_source(arguments.source) if isinstance(entry, Entry) and entry.picture)
    entries = list(islice(found, arguments.limit))
    arrays = decoded(entries, encoder)
    time_encoder(encoder, arrays[:BATCH_SIZE])
    ratios = []
    print(f"{len(arrays)} pictures, {arguments.threads} threads, {arguments.workers} decoding processes")
    for turn in range(arguments.rounds):
        bare = time_encoder(encoder, arrays)
        built = time_build(encoder, entries, arguments.workers)
        ratios.append(built / bare)
        print(f"round {turn + 1}: encoder {bare:6.1f} pictures/s, whole build {built:6.1f}, ratio {built / bare:.2f}")
    print(f"median ratio {median(ratios):.2f}")


if __name__ == "__main__":
    main()
