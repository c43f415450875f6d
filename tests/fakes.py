"""Deterministic stand-ins that need neither torch nor weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unprompt.types import Embeddings, Pixels

PALETTE = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 30),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "cyan": (30, 220, 220),
    "magenta": (220, 30, 220),
}


def word_vector(word: str, dim: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(dim)


def normalise(rows: np.ndarray) -> Embeddings:
    rows = np.asarray(rows, dtype=np.float64)
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class FakePreprocess:
    """Squash to 8x8."""

    size: int = 8

    def __call__(self, image: Image.Image) -> Pixels:
        return np.asarray(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BOX), dtype=np.uint8)

    def to_dict(self) -> dict[str, Any]:
        return {"resize": "squash", "size": self.size}


class FakeEncoder:
    """A text is the sum of its words' vectors; a picture is its nearest palette colour's word, and some of its pixels.

    So a red picture is near the text "red", and two red pictures differ slightly. ``images_encoded`` and
    ``texts_encoded`` count what went through, for tests of "embed once".
    """

    def __init__(self, dim: int = 32, salt: str = "") -> None:
        self.name = f"fake{salt}"
        self.dim = dim
        self.fingerprint = hashlib.sha256(f"fake-{dim}-{salt}".encode()).hexdigest()
        self.preprocess = FakePreprocess()
        self.images_encoded = 0
        self.texts_encoded = 0

    def encode_images(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        rows = []
        for image in images:
            pixels = self.preprocess(image) if isinstance(image, Image.Image) else image
            assert pixels.shape == (8, 8, 3)
            assert pixels.dtype == np.uint8
            mean = pixels.reshape(-1, 3).mean(axis=0)
            colour = min(PALETTE, key=lambda name: float(np.sum((mean - np.array(PALETTE[name])) ** 2)))
            projection = np.random.default_rng(7).standard_normal((192, self.dim))
            detail = (pixels.reshape(-1).astype(np.float64) / 255.0 - 0.5) @ projection / 14.0
            rows.append(word_vector(colour, self.dim) + 2.0 * detail)
        self.images_encoded += len(rows)
        return normalise(np.array(rows)) if rows else np.zeros((0, self.dim), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        rows = []
        for text in texts:
            words = text.lower().replace(",", " ").split() or ["(nothing)"]
            rows.append(np.sum([word_vector(word, self.dim) for word in words], axis=0))
        self.texts_encoded += len(rows)
        return normalise(np.array(rows)) if rows else np.zeros((0, self.dim), np.float32)


def colour_picture(path: Path, colour: str, seed: int = 0, size: tuple[int, int] = (24, 24)) -> Path:
    """Writes a noisy picture of one palette colour; the same arguments give the same bytes."""
    noise = np.random.default_rng([seed, *colour.encode()]).integers(-18, 19, (size[1], size[0], 3))
    pixels = np.clip(np.array(PALETTE[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def colour_folder(folder: Path, total: int = 40) -> list[tuple[Path, str]]:
    """Writes `total` colour pictures with sidecar prompts; returns (picture, prompt) in name order."""
    styles = ["oil painting", "sketch", "photo", "watercolor"]
    pairs = []
    for i in range(total):
        colour = list(PALETTE)[i % len(PALETTE)]
        path = colour_picture(folder / f"picture-{i:04d}.png", colour, seed=i)
        prompt = f"a {colour} thing, {styles[(i // len(PALETTE)) % len(styles)]}"
        path.with_suffix(".txt").write_text(prompt + "\n", encoding="utf-8")
        pairs.append((path, prompt))
    return pairs
