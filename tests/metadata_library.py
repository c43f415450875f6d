"""Libraries of made-up embeddings and metadata, written without decoding a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fakes import normalise
from unprompt.index.library import Library
from unprompt.index.manifest import EncoderInfo
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURES, PROMPTS, records_table
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Record

SAMPLERS = ["k_lms", "ddim", "k_euler", "50%_done", "back\\slash", "Ünïcode 水", "it's"]
DATES = ["2022-08-16T03:14:00+00:00", "2022-08-16", "2022-09-01T23:59:59.5+02:00", "2021-12-31T23:30:00-01:00", "soon"]
EXTRAS = ["anna", "bob's", "100%", 3, 7.5, -2, True, False, ["a", "list"], 10**400]
FINGERPRINT = "f" * 64


def make_records(total: int, seed: int = 0, first: int = 0) -> list[Record]:
    """Records of which each field is missing now and then; every third prompt is that of another picture."""
    rng = np.random.default_rng([seed, first])

    def some(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    records = []
    for i in range(first, first + total):
        metadata: dict[str, Any] = {"sha256": f"{i:064x}", "source": some(["diffusiondb", "mine"])}
        values = {
            "sampler": some(SAMPLERS),
            "cfg": some([7.0, 7.1, 7.5, 12.0, -1.0]),
            "steps": int(rng.integers(10, 60)),
            "seed": some(["123", "18446744073709551615", "0"]),
            "width": some([512, 768]),
            "height": some([512, 768, 1024]),
            "image_nsfw": some([0.05, 0.5, 0.9]),
            "prompt_nsfw": some([0.0, 0.3]),
            "negative_prompt": some(["blurry", "bad_hands, 100%", ""]),
            "timestamp": some(DATES),
            "user name": some(EXTRAS),
            "likes": some([1, 5, "many", 12]),
        }
        metadata |= {key: value for key, value in values.items() if rng.random() > 0.25}
        prompt = f"a {some(['red', 'green', 'blue'])} thing {i if i % 3 else i // 30}, {some(SAMPLERS)}"
        records.append(Record(f"{seed:04x}{i:016x}", prompt, f"/pictures/{i}.png", metadata))
    return records


def unit_rows(total: int, dim: int, seed: int) -> Embeddings:
    """(total, dim) clustered unit rows as half precision stores them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((16, dim))
    rows = normalise(centres[rng.integers(16, size=total)] + 0.5 * rng.standard_normal((total, dim)))
    return rows.astype(np.float16).astype(np.float32)


def prompt_rows(prompts: list[str], dim: int) -> Embeddings:
    """The embedding of each prompt, the same for the same prompt."""
    rows = [np.random.default_rng(list(prompt.encode())).standard_normal(dim) for prompt in prompts]
    return normalise(np.array(rows)).astype(np.float16).astype(np.float32)


def encoder_info(dim: int, fingerprint: str = FINGERPRINT) -> EncoderInfo:
    return EncoderInfo("fake", fingerprint, dim, {"resize": "squash", "size": 8})


def write_metadata_library(
    root: Path,
    records: list[Record],
    dim: int = 16,
    index: str = "auto",
    shard_size: int = 128,
    lone_prompts: tuple[str, ...] = (),
) -> Library:
    """Writes, or adds to, a library of `records`; the embedding of each follows from its id."""
    import pyarrow as pa

    with LibraryWriter(root, encoder_info(dim)) as writer:
        for start in range(0, len(records), shard_size):
            part = records[start : start + shard_size]
            seeds = [int(record.id, 16) % 2**32 for record in part]
            pictures = np.concatenate([unit_rows(1, dim, seed) for seed in seeds])
            arrays = {"img_emb": pictures, "text_emb": prompt_rows([record.prompt for record in part], dim)}
            writer.append_shard(PICTURES, arrays, records_table(part))
        if lone_prompts:
            rows = [{"id": f"{i:020x}", "caption": prompt, "count": 2} for i, prompt in enumerate(lone_prompts)]
            table = pa.Table.from_pylist(rows, schema=PROMPTS.schema)
            writer.append_shard(PROMPTS, {"prompt_emb": prompt_rows(list(lone_prompts), dim)}, table)
        refresh(writer, index=index)
    return Library.open(root)


def named(base_url: str, name: str) -> str:
    """A backend's address with a library's name."""
    return f"{base_url}{'&' if '?' in base_url else '?'}library={name}"
