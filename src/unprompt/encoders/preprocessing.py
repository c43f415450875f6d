"""From a decoded picture to an encoder's input size, in uint8. Picklable, without torch: it runs in workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from unprompt.errors import EncoderError
from unprompt.pictures.opening import to_rgb
from unprompt.types import Pixels, Preprocess

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
RESIZES = ("shortest", "squash")
CROPS = ("round", "floor")
MAX_ASPECT = 100
"""Of a picture whose sides differ more than this, only the middle is resized; the crop shows no more of it anyway."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize and crop, with the normalisation that the encoder applies afterwards on its own device.

    Attributes:
        size: (height, width) of the result in pixels.
        resize: "shortest" scales the shorter side and crops the centre; "squash" ignores the aspect ratio.
        interpolation: a key of `INTERPOLATIONS`.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        shortest: the shorter side before the crop where that is not the crop's own side (classically 256 before 224).
        crop: how an odd margin is halved: "round" (torchvision: to even) or "floor" (transformers without torchvision).

    """

    size: tuple[int, int]
    resize: str = "shortest"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    shortest: int | None = None
    crop: str = "round"

    def __post_init__(self) -> None:
        """Rejects what could only fail later, in a worker process.

        Raises:
            EncoderError: a value is out of range.

        """
        for value, allowed in ((self.resize, RESIZES), (self.interpolation, INTERPOLATIONS), (self.crop, CROPS)):
            if value not in allowed:
                raise EncoderError(f"preprocessing cannot do {value!r}: use one of {', '.join(allowed)}")
        if len(self.size) != 2 or min(*self.size, self.shortest or 1) < 1:
            raise EncoderError(f"preprocessing size {self.size}, shortest {self.shortest}: sides are 1 pixel or more")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise EncoderError(f"preprocessing mean {self.mean}, std {self.std}: give three channels, std above 0")

    def __call__(self, image: Image.Image) -> Pixels:
        """Turns a picture of any mode and size into (H, W, 3) uint8 RGB."""
        image = to_rgb(image)
        if self.resize == "shortest":
            image = _trim(image)
        height, width = self.size
        resample = INTERPOLATIONS[self.interpolation]
        target = (width, height) if self.resize == "squash" else self._scaled(*image.size)
        if image.size != target:
            image = image.resize(target, resample)
        if self.resize == "shortest":
            image = _centre_crop(image, width, height, self.crop)
        return np.asarray(image, dtype=np.uint8)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) before the crop: the shorter side exact, the longer truncated, as torchvision."""
        crop_height, crop_width = self.size
        if self.shortest is None and crop_height != crop_width:
            # Not square: torchvision has no such resize; this is open_clip's.
            ratio = min(height / crop_height, width / crop_width)
            return round(width / ratio), round(height / ratio)
        side = self.shortest or crop_height
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON: `from_dict` gives it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Reads what `to_dict` wrote.

        Raises:
            EncoderError: a key is missing or unknown, or a value is out of range.

        """
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**arguments)
        except TypeError as error:
            raise EncoderError(f"preprocessing {dict(values)!r} is not valid: {error}") from None


def stack_pixels(images: Sequence[Image.Image | Pixels], preprocess: Preprocess, size: tuple[int, int]) -> Pixels:
    """Stacks N pictures as (N, H, W, 3) uint8: PIL pictures are preprocessed first, arrays are taken as they are.

    Raises:
        EncoderError: an array is not (H, W, 3) uint8 of the encoder's input size.

    """
    stack = np.empty((len(images), *size, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        pixels = preprocess(image) if isinstance(image, Image.Image) else image
        if pixels.shape != (*size, 3) or pixels.dtype != np.uint8:
            raise EncoderError(
                f"picture {row} is {pixels.dtype} {pixels.shape}, the encoder takes uint8 {(*size, 3)}: "
                "pass it as a PIL image"
            )
        stack[row] = pixels
    return stack


def _trim(image: Image.Image) -> Image.Image:
    """Cuts the ends off a picture so long that scaling its shorter side up would fill the memory."""
    width, height = (min(side, MAX_ASPECT * min(image.size)) for side in image.size)
    return _centre_crop(image, width, height, "round")


def _centre_crop(image: Image.Image, width: int, height: int, rounding: str) -> Image.Image:
    """Crops the centre; a picture smaller than the crop is padded with black, as torchvision does."""
    if image.size == (width, height):
        return image
    half = round if rounding == "round" else int
    pad_left, pad_top = max(0, (width - image.width) // 2), max(0, (height - image.height) // 2)
    left, top = half(max(0, image.width - width) / 2), half(max(0, image.height - height) / 2)
    # PIL's crop fills what lies outside with black.
    left, top = left - pad_left, top - pad_top
    return image.crop((left, top, left + width, top + height))
