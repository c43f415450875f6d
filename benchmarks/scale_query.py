"""Whole queries against a library of a million pictures, beside the encoder's own forward pass.

    python benchmarks/scale_query.py --rows 1000000 --prompts 250000 --out figures.json
    unprompt vocabulary add --library KEPT clip-interrogator    # then again with --keep KEPT: modes with fragments

The library's embeddings are clustered vectors (`scale_vectors.py`) with made-up prompts, in the starter encoder's
dimension and in shards of the usual size; its index is the one that `--index auto` chooses. Each query prepares and
encodes a picture of noise, and then searches with a vector drawn like the library's, so that every query finds other
rows: all pictures of noise are alike to an encoder. Retrieval searches pictures and prompts 50 deep and reads the
records; mode "retrieve" answers with that; the other modes also rank fragments, encode texts and compose, and the
captioner writes what they order. Each is timed in turn with the encoder alone, one picture at a time, with texts of its
own kept.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scale_vectors import mixture
from unprompt.builders.build import encoder_info
from unprompt.captioners.registry import load_captioner
from unprompt.encoders import load_encoder
from unprompt.index.library import Library
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURE_SCHEMA, PICTURES, SHARD_SIZE
from unprompt.index.writer import LibraryWriter
from unprompt.search.engine import Engine
from unprompt.search.evidence import find_evidence
from unprompt.search.retrieve import as_backend
from unprompt.search.settings import Settings
from unprompt.types import Captioner, Embeddings, Encoder, Pixels

WARM_UP = 20
"""Queries before the clock counts, of each kind."""
SETTLING = 500
"""Queries before them all: they read the tables and pages that stay."""
DEPTH = 50
"""How far down each ranking a query for five prompts looks."""
WORDS = (
    "castle",
    "portrait",
    "forest",
    "neon",
    "oil",
    "watercolor",
    "sunset",
    "robot",
    "city",
    "ocean",
    "marble",
    "photo",
)


def write_library(root: Path, encoder: Encoder, rows: int, prompts: int) -> float:
    """Writes the library and returns the seconds that indexing took."""
    draw = np.random.default_rng(3)
    texts = [f"{', '.join(draw.choice(WORDS, 4))}, number {i}" for i in range(prompts)]
    spread = mixture(prompts, encoder.dim, prompts, seed=5)
    with LibraryWriter(root, encoder_info(encoder)) as writer:
        for number, start in enumerate(range(0, rows, SHARD_SIZE)):
            numbers = np.arange(start, min(start + SHARD_SIZE, rows))
            at = (numbers * 7919) % prompts
            images = mixture(len(numbers), encoder.dim, rows, seed=100 + number)
            arrays = {"img_emb": images, "text_emb": spread[at]}
            writer.append_shard(PICTURES, arrays, metadata(numbers, [texts[i] for i in at]))
        started = time.perf_counter()
        refresh(writer)
        return time.perf_counter() - started


def metadata(numbers: NDArray[np.int64], prompts: list[str]) -> pa.Table:
    """A shard's table, as full as DiffusionDB's."""
    count = len(numbers)
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers.tolist()]
    draw = np.random.default_rng(int(numbers[0]))
    cells: dict[str, Any] = {name: [None] * count for name in PICTURE_SCHEMA.names}
    cells |= {
        "id": [f"{number:020x}" for number in numbers.tolist()],
        "caption": prompts,
        "sha256": hashes,
        "image_path": [f"part-{numbers[0]:06d}.zip/{each[:32]}.png" for each in hashes],
        "source": ["diffusiondb"] * count,
        "sampler": draw.choice(["k_lms", "k_euler_a", "ddim", "plms"], count).tolist(),
        "cfg": draw.choice([7.0, 7.5, 12.0], count).tolist(),
        "steps": draw.choice([20, 50, 150], count).tolist(),
        "seed": [str(seed) for seed in draw.integers(0, 2**31, count)],
        "width": [512] * count,
        "height": [512] * count,
        "image_nsfw": draw.random(count).tolist(),
        "prompt_nsfw": draw.random(count).tolist(),
    }
    return pa.table(cells, schema=PICTURE_SCHEMA)


def measure(root: Path, encoder: Encoder, queries: int, captioner: Captioner | None) -> dict[str, Any]:
    """The median milliseconds of a forward pass and of what is done with it, and of opening the library."""
    started = time.perf_counter()
    library = Library.open(root)
    assert library.image_index is not None
    assert library.prompt_index is not None
    opening = time.perf_counter() - started
    height, width = encoder.preprocess.to_dict()["size"]
    total = WARM_UP + queries
    pictures = np.random.default_rng(9).integers(0, 256, (total, height, width, 3), dtype=np.uint8)
    steps = steps_of(library, encoder, captioner)

    def forward(picture: Pixels) -> object:
        return encoder.encode_images([picture])

    # None is asked twice. The first find pages of the library that are not in memory yet, as those of a day do not.
    points = iter(mixture(SETTLING + total * len(steps), encoder.dim, len(library), seed=77))
    for picture in islice(cycle(pictures), SETTLING):
        steps["mode retrieve"](picture, next(points))
    figures: dict[str, dict[str, list[float]]] = {}
    # Each takes turns with the forward pass alone, as in a process that answers in one mode.
    for name, step in steps.items():
        pairs = [(timed(forward, picture), timed(step, picture, next(points))) for picture in pictures][WARM_UP:]
        alone, whole = (np.median([pair[side] for pair in pairs], axis=0) for side in (0, 1))  # (2,): clock and CPU
        figures[name] = {
            "forward_ms": (1e3 * alone).round(2).tolist(),
            "whole_ms": (1e3 * whole).round(2).tolist(),
            "times": (whole / alone).round(3).tolist(),
        }
    return {"p50, by the clock and of CPU": figures, "open_ms": round(opening * 1e3, 1)}


def timed(step: Callable[..., object], *arguments: object) -> tuple[float, float]:
    """Seconds by the clock, and of this process's CPU."""
    busy, started = time.process_time(), time.perf_counter()
    step(*arguments)
    return time.perf_counter() - started, time.process_time() - busy


def steps_of(
    library: Library, encoder: Encoder, captioner: Captioner | None
) -> dict[str, Callable[[Pixels, Embeddings], object]]:
    """What is timed, by name: each a function of a picture and of the point to search with."""
    backend, embedding = as_backend(library), Engine(library, encoder)

    def retrieve(picture: Pixels, point: Embeddings) -> None:
        [[query]] = embedding.embed(picture)
        find_evidence(backend, [replace(query, embedding=point)], DEPTH)

    def answering(settings: Settings, *captioners: Captioner) -> Callable[[Pixels, Embeddings], object]:
        engine = Engine(library, encoder, captioners=captioners)

        def answer(picture: Pixels, point: Embeddings) -> object:
            [[query]] = engine.embed(picture)
            return engine.search([replace(query, embedding=point)], settings=settings)

        return answer

    steps: dict[str, Callable[[Pixels, Embeddings], object]] = {
        "retrieval": retrieve,
        "mode retrieve": answering(Settings(mode="retrieve")),
        "mode fast": answering(Settings(mode="fast")),
        "default, no captioner": answering(Settings()),
    }
    if captioner is not None:
        steps["default"] = answering(Settings(), captioner)
    return steps


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--prompts", default=250_000, show_default=True, help="Distinct ones.")
@click.option("--queries", default=100, show_default=True, help="Besides those that warm up.")
@click.option("--encoder", "name", default="starter", show_default=True)
@click.option("--captioner", default="transformer", show_default=True, help="That the default answer asks, or none.")
@click.option("--keep", type=click.Path(path_type=Path), help="Make the library here, or use the one that is here.")
@click.option("--out", type=click.Path(path_type=Path))
def main(rows: int, prompts: int, queries: int, name: str, captioner: str, keep: Path | None, out: Path | None) -> None:
    """Measure whole queries against a large library."""
    encoder = load_encoder(name)
    with tempfile.TemporaryDirectory() as folder:
        root = keep or Path(folder) / "library"
        indexed = None if root.exists() else round(write_library(root, encoder, rows, prompts), 1)

        opened = Library.open(root)
        found = {
            "rows": len(opened),
            "indexing_s": indexed,
            "fragments": len(opened.vocabulary),
            **measure(root, encoder, queries, None if captioner == "none" else load_captioner(captioner)),
            "indexes": {key: vars(info) for key, info in opened.manifest.indexes.items()},
        }
    click.echo(json.dumps(found, indent=1))
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
