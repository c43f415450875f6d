"""Augmented views of a picture, on its preprocessed pixels: rotation, mirroring and random erasing, each seeded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from unprompt.errors import EncoderError
from unprompt.types import Pixels

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is done to a view; the defaults are the paper's kinds of augmentation.

    Attributes:
        rotation: degrees; the angle is uniform in [-rotation, rotation], and the corners show the mean colour.
        flip: probability of mirroring left and right.
        erasing: probability that a rectangle is replaced by noise (Zhong et al., "Random Erasing", 2020).
        area: smallest and largest share of the picture that is erased.
        aspect: the rectangle's height / width lies in [aspect, 1 / aspect].
    """

    rotation: float = 15.0
    flip: float = 0.5
    erasing: float = 0.25
    area: tuple[float, float] = (0.02, 0.2)
    aspect: float = 0.3

    def __post_init__(self) -> None:
        """Rejects what is out of range.

        Raises:
            EncoderError: an angle, probability or share is out of range.
        """
        shares = (self.flip, self.erasing, *self.area)
        if not (0 <= self.rotation <= 180 and all(0 <= share <= 1 for share in shares) and 0 < self.aspect <= 1):
            raise EncoderError(
                f"augmentation {asdict(self)} is out of range: rotation is 0 to 180 degrees, the rest lies in [0, 1]"
            )

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that change with any of the values."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def __call__(self, pixels: Pixels, seed: str) -> Pixels:
        """One view of (H, W, 3) uint8 pixels; the same seed gives the same view."""
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
        angle, mirrored, erased = rng.uniform(-1, 1) * self.rotation, rng.random() < self.flip, rng.random()
        if angle:
            pixels = _rotated(pixels, angle)
        if mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        return self._erase(pixels, rng) if erased < self.erasing else pixels

    def _erase(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = pixels.shape[:2]
        for _ in range(_TRIES):
            area = rng.uniform(*self.area) * height * width
            ratio = float(np.exp(rng.uniform(np.log(self.aspect), -np.log(self.aspect))))
            h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
                pixels = pixels.copy()
                pixels[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
                return pixels
        return pixels


def _rotated(pixels: Pixels, angle: float) -> Pixels:
    fill = tuple(int(value) for value in pixels.reshape(-1, 3).mean(axis=0))
    return np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill), dtype=np.uint8)
