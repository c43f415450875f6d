"""Measures the shipped `starter` encoder from its pictures on: retrieval on unseen prompts, open domain, speed.

    python benchmarks/starter.py --data DIR --pool DIR --out figures.json

The open domain is ComfyUI's template pictures, none of which training saw: the prompt of the pool nearest to the
picture is compared with the prompt that made it, against the one constant prompt that does best for all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from unprompt.builders.sources import open_source
from unprompt.encoders import load_encoder, starter
from unprompt.encoders.starter import StarterEncoder
from unprompt.encoders.training.data import SPLITS, load_examples
from unprompt.encoders.training.evaluate import bootstrap, evaluate, to_json
from unprompt.encoders.training.open_domain import load_prompts
from unprompt.types import Embeddings, Entry

EXISTING = click.Path(exists=True, path_type=Path)
BATCH = 256


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--pool", type=EXISTING, help="Folder of .jsonl prompts: the pool of the open domain.")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--weights", type=EXISTING, help="Weights of the head, instead of those in the package.")
@click.option("--threads", default=2, show_default=True, help="Threads of torch.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(data: Path, pool: Path | None, split: str, weights: Path | None, threads: int, out: Path | None) -> None:
    """Print, and write as JSON, the figures of the model card."""
    import torch

    torch.set_num_threads(threads)
    started = time.perf_counter()
    encoder = starter.load(head_path=weights) if weights else load_encoder("starter")
    assert isinstance(encoder, StarterEncoder)
    report: dict[str, Any] = {"load_s": time.perf_counter() - started, "speed": speed(encoder)}
    report[split] = retrieval(encoder, data, split)
    if pool:
        report["open domain"] = open_domain(encoder, pool)
    click.echo(json.dumps(report, indent=1))
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def retrieval(encoder: StarterEncoder, data: Path, split: str) -> dict[str, Any]:
    """Encodes the pictures of one split and measures them."""
    examples = load_examples(data)
    chosen = [e for e in examples if e.split == split]
    parts = [encoder.encode_images([e.open() for e in chosen[i : i + BATCH]]) for i in range(0, len(chosen), BATCH)]
    return to_json(evaluate(examples, np.concatenate(parts), encoder.encode_texts, split))


def open_domain(encoder: StarterEncoder, pool: Path) -> dict[str, Any]:
    """The cosine of the nearest pool prompt with the true one, and where the true one ranks among the pool."""
    entries = [e for e in open_source("comfyui-templates") if isinstance(e, Entry) and e.picture is not None]
    images = [Image.open(e.picture.path).convert("RGB") for e in entries if e.picture is not None]
    true = encoder.encode_texts([e.prompt for e in entries])
    prompts = sorted({prompt for path in sorted(pool.glob("*.jsonl")) for prompt in load_prompts(path)})
    return open_figures(encoder.encode_images(images), true, encoder.encode_texts(prompts))


def open_figures(queries: Embeddings, true: Embeddings, pool: Embeddings) -> dict[str, Any]:
    """See `open_domain`; all (N, dim)."""
    scores = queries @ pool.T  # (N, P)
    nearest = (pool[scores.argmax(axis=1)] * true).sum(axis=1).astype(np.float64)
    ranks = (scores > (queries * true).sum(axis=1)[:, None]).sum(axis=1) + 1
    figure = bootstrap(nearest, [str(i) for i in range(len(nearest))])
    return {
        "cosine of top prompt": {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n},
        "cosine of best constant": float((pool @ true.T).mean(axis=1).max()),
        "cosine of best pool prompt": float((pool @ true.T).max(axis=0).mean()),
        "true prompt in top 100": int((ranks <= 100).sum()),
        "median rank of true prompt": float(np.median(ranks)),
        "pool": len(pool),
    }


def speed(encoder: StarterEncoder, pictures: int = 128) -> dict[str, float]:
    """Pictures a second from decoded arrays, and milliseconds for a single one."""
    height, width = encoder.preprocess.size
    arrays = list(np.random.default_rng(0).integers(0, 256, (pictures, height, width, 3), dtype=np.uint8))
    encoder.encode_images(arrays[:8])
    batch = fastest(lambda: encoder.encode_images(arrays))
    return {"pictures/s": pictures / batch, "single ms": 1000 * fastest(lambda: encoder.encode_images(arrays[:1]))}


def fastest(call: Callable[[], object], repeats: int = 3) -> float:
    """The least of a few timings, in seconds: the one that other programs disturbed least."""
    timings = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        timings.append(time.perf_counter() - started)
    return min(timings)


if __name__ == "__main__":
    main()
