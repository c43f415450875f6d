"""Where a captioner looked, drawn over the picture: one panel a word, in a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unprompt.captioners.captioner import TrainedCaptioner
from unprompt.captioners.interface import CaptionerError, Memory
from unprompt.types import Pixels

LABEL = 18
"""Pixels of height for a panel's word."""
RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32)
"""Dark to light, even in lightness, so that a grey print reads the same."""


@torch.inference_mode()
def attention_to(
    captioner: TrainedCaptioner, image: Image.Image, prompt: str, neighbours: Sequence[str] = ()
) -> tuple[list[str], NDArray[np.float32]]:
    """Where a captioner looks while it writes a prompt, its own or another.

    Args:
        captioner: an `lstm` or a `transformer`; a bridge's queries look before any word is written.
        image: the picture.
        prompt: cut where the captioner would cut it.
        neighbours: prompts that it is told.

    Returns:
        The prompt's T words, and (T, S) weights as `draw_attention` takes them: the mean over a word's tokens.

    Raises:
        CaptionerError: the captioner does not look word by word, or the prompt has no words.
    """
    model, tokenizer = captioner.model, captioner.tokenizer
    look: Callable[[Memory, torch.Tensor], torch.Tensor] | None = getattr(model, "attention_weights", None)
    if look is None:
        raise CaptionerError(f"a {model.name} does not look word by word: use an lstm or a transformer")
    tokens = tokenizer.encode([prompt], model.config.max_tokens)[0]
    texts = tokenizer.decode([tokens[:end] for end in range(1, len(tokens))])
    words = texts[-1].split()
    if not words:
        raise CaptionerError(f"prompt {prompt!r} has no words: give one that has some")
    memory = captioner.memory(captioner.grids([image]), [list(neighbours)] if neighbours else None)
    weights = look(memory, torch.tensor([tokens], device=captioner.device))[0].cpu().numpy()
    # A token's weights stand at the token before it. It belongs to the last word of the text that ends with it, or to
    # the next one if it is the space before that.
    blank = [not text for text in tokenizer.decode([[tokens[0], token] for token in tokens[1:-1]])]
    ends = [len(text.split()) - 1 for text in texts[1:]]
    place = np.clip(np.add(ends, blank), 0, len(words) - 1)
    return words, np.stack([weights[: len(place)][place == word].mean(axis=0) for word in range(len(words))])


def draw_attention(
    pixels: Pixels,
    words: Sequence[str],
    weights: NDArray[np.float32],
    *,
    grid: tuple[int, int] = (7, 7),
    columns: int = 5,
    side: int = 160,
    opacity: float = 0.6,
) -> Image.Image:
    """Draws the picture, and beside it once more for each word with the attention over it.

    Args:
        pixels: (H, W, 3) uint8 RGB as the backbone saw it, so that tokens and pixels lie on each other.
        words: T words.
        weights: (T, S), 0 or more: S is the grid's tokens, row by row, then those of neighbours, whose
            share is written beside the word.
        grid: rows and columns of the picture's tokens.
        columns: panels side by side.
        side: width and height of a panel's picture, in pixels.
        opacity: of the colours, between 0 and 1. Each word's scale is its own: the lightest is its largest weight.

    Raises:
        CaptionerError: the weights are not of these words and this grid.
    """
    rows, across = grid
    weights = np.asarray(weights, dtype=np.float32)
    if weights.ndim != 2 or len(weights) != len(words) or weights.shape[1] < rows * across:
        raise CaptionerError(
            f"attention weights {weights.shape} for {len(words)} words and a grid of {rows}x{across}: "
            "give one row a word and one column a token"
        )
    picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    panels = [(picture, "")]
    for word, row in zip(words, weights, strict=True):
        told = float(row[rows * across :].sum() / max(float(row.sum()), 1e-12))
        label = f"{word} ({told:.0%} neighbours)" if weights.shape[1] > rows * across else word
        panels.append((overlay(picture, row[: rows * across].reshape(grid), opacity), label))
    return _lay_out(panels, columns, side)


def overlay(picture: Image.Image, weights: NDArray[np.float32], opacity: float = 0.6) -> Image.Image:
    """Blends a map of weights (rows, columns), 0 or more, over a picture; its largest weight is the lightest."""
    scaled = weights / max(float(weights.max()), 1e-12)
    # Bicubic overshoots beside a peak.
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth, dtype=np.float32), 0.0, 1.0)
    place = heat * (len(RAMP) - 1)
    low = np.minimum(place.astype(np.int64), len(RAMP) - 2)
    colours = RAMP[low] + (RAMP[low + 1] - RAMP[low]) * (place - low)[..., None]
    return Image.blend(picture.convert("RGB"), Image.fromarray(colours.round().astype(np.uint8)), opacity)


def _lay_out(panels: Sequence[tuple[Image.Image, str]], columns: int, side: int) -> Image.Image:
    columns = max(1, min(columns, len(panels)))
    height = side + LABEL
    sheet = Image.new("RGB", (columns * side, math.ceil(len(panels) / columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for number, (panel, label) in enumerate(panels):
        left, top = number % columns * side, number // columns * height
        sheet.paste(panel, (left, top + LABEL))
        draw.text((left + 3, top + 2), _fit(label, font, draw, side - 6), fill="black", font=font)
    return sheet


def _fit(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, draw: ImageDraw.ImageDraw, width: int) -> str:
    """The label, cut where it would run into the next panel."""
    if draw.textlength(label, font) <= width:
        return label
    while label and draw.textlength(label + "...", font) > width:
        label = label[:-1]
    return label + "..."
