"""A whole query against a library of a million pictures, beside the encoder's own forward pass.

    python benchmarks/scale_query.py --rows 1000000 --prompts 250000 --out figures.json

The library's embeddings are clustered vectors (`scale_vectors.py`) with made-up prompts, in the starter encoder's
dimension; its index is the one that `--index auto` chooses. Retrieval is what
this measures: preparing and encoding a picture, searching pictures and prompts 50 deep, reading the records. A query
then also ranks candidates and composes, for which it encodes texts. All are timed in turn, one picture at a time.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from scale_vectors import mixture
from unprompt.builders.build import encoder_info
from unprompt.encoders import load_encoder
from unprompt.index.library import Library
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURE_SCHEMA, PICTURES
from unprompt.index.writer import LibraryWriter
from unprompt.search.engine import Engine
from unprompt.search.settings import Settings
from unprompt.types import Encoder, Pixels

SHARD = 50_000
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
        for number, start in enumerate(range(0, rows, SHARD)):
            count = min(SHARD, rows - start)
            at = (np.arange(start, start + count) * 7919) % prompts
            cells: dict[str, list[Any]] = {name: [None] * count for name in PICTURE_SCHEMA.names}
            cells["id"] = [f"{row:020x}" for row in range(start, start + count)]
            cells["caption"] = [texts[i] for i in at]
            arrays = {"img_emb": mixture(count, encoder.dim, rows, seed=100 + number), "text_emb": spread[at]}
            writer.append_shard(PICTURES, arrays, pa.table(cells, schema=PICTURE_SCHEMA))
        started = time.perf_counter()
        refresh(writer)
        return time.perf_counter() - started


def measure(root: Path, encoder: Encoder, queries: int) -> dict[str, Any]:
    """The median milliseconds of a forward pass and of what is done with it, and of opening the library."""
    started = time.perf_counter()
    library = Library.open(root)
    images, texts = library.image_index, library.prompt_index
    opening = time.perf_counter() - started
    assert images is not None
    assert texts is not None
    engine = Engine(library, encoder)
    height, width = encoder.preprocess.to_dict()["size"]
    pictures = np.random.default_rng(9).integers(0, 256, (queries, height, width, 3), dtype=np.uint8)

    def retrieve(picture: Pixels) -> None:
        embedding = next(iter(engine.embed(picture)))[0].embedding[None]
        library.records(images.search(embedding, DEPTH)[1][0].tolist())
        library.prompts(texts.search(embedding, DEPTH)[1][0].tolist())

    plain = Settings(rerank=False)
    steps: dict[str, Callable[[Pixels], object]] = {
        "forward": lambda picture: encoder.encode_images([picture]),
        "retrieval": retrieve,
        "query without rerank": lambda picture: engine.query(picture, k=5, settings=plain),
        "query": lambda picture: engine.query(picture, k=5),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn, picture in enumerate(pictures):
        for name, step in steps.items():
            started = time.perf_counter()
            step(picture)
            if turn >= queries // 10:  # the first ones read tables and pages that stay
                seconds[name].append(time.perf_counter() - started)
    p50 = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "p50_ms": {name: round(value * 1e3, 2) for name, value in p50.items()},
        "times_forward": {name: round(value / p50["forward"], 3) for name, value in p50.items()},
        "open_ms": round(opening * 1e3, 1),
    }


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--prompts", default=250_000, show_default=True, help="Distinct ones.")
@click.option("--queries", default=100, show_default=True)
@click.option("--encoder", "name", default="starter", show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Make the library here, or use the one that is here.")
@click.option("--out", type=click.Path(path_type=Path))
def main(rows: int, prompts: int, queries: int, name: str, keep: Path | None, out: Path | None) -> None:
    """Measure whole queries against a large library."""
    encoder = load_encoder(name)
    with tempfile.TemporaryDirectory() as folder:
        root = keep or Path(folder) / "library"
        indexed = None if root.exists() else round(write_library(root, encoder, rows, prompts), 1)

        opened = Library.open(root)
        found = {
            "rows": len(opened),
            "indexing_s": indexed,
            **measure(root, encoder, queries),
            "indexes": {key: vars(info) for key, info in opened.manifest.indexes.items()},
        }
    click.echo(json.dumps(found, indent=1))
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
