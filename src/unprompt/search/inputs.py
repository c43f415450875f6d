"""Query pictures: whatever a caller has, as named pixels with the prompt that they carry themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unprompt.errors import QueryError
from unprompt.pictures.opening import open_picture, read_bytes, to_rgb
from unprompt.types import Picture, Pixels, Preprocess

KEPT = (512, 2048)
"""The shorter and the longer side, in pixels, of the largest picture that is kept: captioners look at 224 to 480."""


@dataclass(frozen=True, slots=True)
class QueryImage:
    """A picture to search with, ready for one encoder.

    Attributes:
        name: what results call it.
        pixels: what the encoder's preprocessing made of it.
        recorded: the prompt in its own metadata, None when it carries none.
        sha256: of its file, 64 hexadecimal digits; None when it came without one.
        picture: the picture itself in RGB, reduced to at most `KEPT` pixels, where it was to be kept for captioners.
    """

    name: str
    pixels: Pixels
    recorded: str | None = None
    sha256: str | None = None
    picture: Image.Image | None = None


ImageLike = str | os.PathLike[str] | Image.Image | NDArray[Any] | QueryImage
"""A path, a PIL picture of any mode, a (H, W, 3) uint8 RGB array of any size, or what `load_query_image` made of it."""


def load_query_image(image: ImageLike, preprocess: Preprocess, position: int = 0, *, keep: bool = False) -> QueryImage:
    """Opens one query picture.

    Args:
        image: see `ImageLike`.
        preprocess: the encoder's.
        position: where it stands among the query's pictures; names a picture that has no path, as in "image 3".
        keep: whether captioners are to look at it.

    Raises:
        PictureError: the file is missing, too large or not a picture.
        QueryError: an array is not (H, W, 3) uint8, or it is none of these.
    """
    match image:
        case QueryImage():
            return image
        case Image.Image():
            name = str(getattr(image, "filename", "") or f"image {position}")
            rgb = to_rgb(image)
            return QueryImage(name, preprocess(rgb), _recorded(image), picture=_reduced(rgb) if keep else None)
        case np.ndarray():
            if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
                raise QueryError(f"image {position} is {image.dtype} {image.shape}, pass (H, W, 3) uint8 RGB")
            rgb = Image.fromarray(image)
            return QueryImage(f"image {position}", preprocess(rgb), picture=_reduced(rgb) if keep else None)
        case str() | os.PathLike():
            path = os.fspath(image)
            return decode_query_image(path, read_bytes(Picture(path)), preprocess, keep=keep)
        case _:
            raise QueryError(f"image {position} is a {type(image).__name__}, pass a path, a PIL picture or an array")


def decode_query_image(name: str, data: bytes, preprocess: Preprocess, *, keep: bool = False) -> QueryImage:
    """Decodes one query picture from its encoded bytes, such as standard input gives.

    Raises:
        PictureError: they are not a picture, or one that is too large.
    """
    rgb = open_picture(Picture(name), data)
    picture = _reduced(rgb) if keep else None
    return QueryImage(name, preprocess(rgb), _recorded(data), hashlib.sha256(data).hexdigest(), picture)


def iterate_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[ImageLike]:
    """One picture or many, one after the other; an (N, H, W, 3) array is N pictures."""
    if isinstance(images, str | os.PathLike | Image.Image | QueryImage) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    ):
        yield images
    else:
        yield from images


def _reduced(picture: Image.Image) -> Image.Image:
    """The picture, scaled down where it is larger than `KEPT`: a batch of them stays in memory."""
    shorter, longer = sorted(picture.size)
    scale = min(KEPT[0] / shorter, KEPT[1] / longer)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _recorded(source: bytes | Image.Image) -> str | None:
    from unprompt.pictures.recorded import read_recorded_prompt

    found = read_recorded_prompt(source)
    return found.prompt if found else None
