"""A few parts in DiffusionDB's format, made of other pictures, so that presets can be run where DiffusionDB is not.

    python -m unprompt.evaluation.presets.fixture --data DIR --out DIR

It is not DiffusionDB: a file (`MARKER`) and every ``user_name`` say so, and no published figure is comparable with
what is measured on it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from unprompt.encoders.training.data import SETS, Example, load_examples
from unprompt.errors import EvaluationError, UnpromptError
from unprompt.evaluation.presets.preset import MARKER

SIDE = 512
"""Pixels: what Stable Diffusion 1 makes unless it is told otherwise."""
USER = "not DiffusionDB"
_PER_PART = 1000
_NOTICE = (
    "These parts are in DiffusionDB's format, but none of their pictures is DiffusionDB's: they were made of other\n"
    "pictures to try presets with. Seeds, guidance scales, steps, samplers and safety scores are made up.\n"
)
_ODD: tuple[dict[str, Any], ...] = (
    {"cfg": -1.0},
    {"step": 5},
    {"image_nsfw": 2.0},
    {"prompt_nsfw": 0.9},
    {"width": 3 * SIDE},
)
"""What `thesis-2023` leaves out, each filter once in `_EVERY` pictures in turn."""
_EVERY = 20


def write_fixture(
    examples: Sequence[Example], out: Path, pictures: int = 400, seed: int = 0, side: int = SIDE
) -> dict[str, int]:
    """Writes ``part-NNNNNN`` folders and ``metadata.parquet``, the same bytes for the same input and seed.

    Args:
        examples: pictures with their prompts.
        out: a folder that is not there, or empty.
        pictures: how many are taken, an equal share of each set as far as it goes.
        seed: of the choice.
        side: of the pictures, in pixels.

    Returns:
        Counts: "pictures", "parts", and "odd", those that the filters of `thesis-2023` leave out.

    Raises:
        EvaluationError: the folder is not empty, or there are no examples.
        OSError: it cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise EvaluationError(f"{out} is not empty: name a new folder")
    chosen = _choose(examples, pictures, seed)
    if not chosen:
        raise EvaluationError("no pictures to make parts of: give the folder that holds them")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(_NOTICE, encoding="utf-8")
    table: list[dict[str, Any]] = []
    for start in range(0, len(chosen), _PER_PART):
        table += _write_part(out, start // _PER_PART + 1, chosen[start : start + _PER_PART], start, side)
    _write_table(out / "metadata.parquet", table)
    odd = sum(place % _EVERY == 0 for place in range(len(chosen)))
    return {"pictures": len(chosen), "parts": -(-len(chosen) // _PER_PART), "odd": odd}


def _choose(examples: Sequence[Example], pictures: int, seed: int) -> list[Example]:
    """Set by set in turn, each set's pictures by a hash of seed and name."""
    queues = [sorted((e for e in examples if e.set == name), key=lambda e: _hash(seed, e)) for name in SETS]
    turns = (queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue))
    return [example for example, _ in zip(turns, range(pictures), strict=False)]


def _write_part(out: Path, number: int, examples: Sequence[Example], start: int, side: int) -> list[dict[str, Any]]:
    from PIL import Image

    folder = out / f"part-{number:06d}"
    folder.mkdir()
    rows, table = {}, []
    for place, example in enumerate(examples, start=start):
        name = f"{_hash(0, example)[:32]}.png"
        known = _metadata(place, side) | {"image_name": name, "part_id": number, "prompt": example.prompt}
        size = (known["width"], known["height"])
        example.open().resize(size, Image.Resampling.BICUBIC).save(folder / name)
        rows[name] = {"p": example.prompt, "se": known["seed"], "c": known["cfg"], "st": known["step"], "sa": "k_lms"}
        table.append(known)
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    (folder / f"part-{number:06d}.json").write_text(text, encoding="utf-8")
    return table


def _metadata(place: int, side: int) -> dict[str, Any]:
    usual = {"seed": 1000 + place, "step": 50, "cfg": 7.0, "sampler": 8, "width": side, "height": side,
             "user_name": USER, "timestamp": datetime(2022, 8, 20, tzinfo=UTC), "image_nsfw": 0.1,
             "prompt_nsfw": 0.01}  # fmt: skip
    odd = _ODD[place // _EVERY % len(_ODD)] if place % _EVERY == 0 else {}
    return usual | odd


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def _hash(seed: int, example: Example) -> str:
    text = f"{seed}\0{example.set}\0{example.path.name}\0{example.cell}\0{example.prompt}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the four sets.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--pictures", type=click.IntRange(1), default=400, show_default=True, help="How many are taken.")
@click.option("--seed", default=0, show_default=True, help="Of the choice.")
def main(data: Path, out: Path, pictures: int, seed: int) -> None:
    """Write parts in DiffusionDB's format, clearly marked as not DiffusionDB's."""
    try:
        counts = write_fixture(load_examples(data), out, pictures, seed)
    except UnpromptError as error:
        sys.exit(f"error: {error}")
    click.echo(f"{out}: {counts['pictures']} pictures in {counts['parts']} parts; not DiffusionDB")


if __name__ == "__main__":
    main()
