"""Draws where the packaged captioners look: the sheets of docs/captioners.md, over pictures of the `demo` extra.

python benchmarks/attention_maps.py --captioner lstm --out docs/attention-lstm.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image

from unprompt.builders.sources import open_source
from unprompt.captioners.attention_maps import attention_to, draw_attention
from unprompt.captioners.captioner import TrainedCaptioner
from unprompt.captioners.registry import WEIGHTS
from unprompt.types import Entry

PICTURES = (
    "flux_dev_checkpoint_example",
    "hidream_i1_fast",
    "api_nano_banana_2_lite_t2i",
    "image_omnigen2_t2i",
)
"""A portrait, a tree, a racing car and a cat on a throne: ComfyUI's template pictures, MIT."""
SIDE, WORDS, COLOURS = 112, 8, 128


@click.command()
@click.option("--captioner", "name", default="lstm", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG file.")
def main(name: str, out: Path) -> None:
    """Write one sheet: a row a picture, a panel a word of the caption that is written for it."""
    captioner = TrainedCaptioner.load(WEIGHTS / name)
    rows = []
    for image in pictures(PICTURES):
        caption = captioner.caption([image])[0][0].prompt
        click.echo(caption)
        words, weights = attention_to(captioner, image, caption)
        seen = captioner.preprocess(image)
        rows.append(draw_attention(seen, words[:WORDS], weights[:WORDS], columns=WORDS + 1, side=SIDE))
    # Few colours make a small file, and a map has few.
    stack(rows).quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


def pictures(names: Sequence[str]) -> list[Image.Image]:
    """Template pictures by the beginnings of their files' names."""
    entries = [entry for entry in open_source("comfyui-templates") if isinstance(entry, Entry)]
    paths = [Path(entry.picture.path) for entry in entries if entry.picture is not None]
    return [Image.open(next(path for path in paths if path.name.startswith(name))).convert("RGB") for name in names]


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Images below each other."""
    width, height = max(row.width for row in rows), sum(row.height for row in rows)
    sheet = Image.new("RGB", (width, height), "white")
    tops = np.cumsum([0, *(row.height for row in rows)])
    for row, top in zip(rows, tops.tolist(), strict=False):
        sheet.paste(row, (0, top))
    return sheet


if __name__ == "__main__":
    main()
