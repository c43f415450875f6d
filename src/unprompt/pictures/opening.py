"""From where a picture is to its pixels: reading bytes from files and archives, and decoding them safely to RGB.

Everything here is picklable and needs Pillow alone, so that worker processes can call it.
"""

from __future__ import annotations

import functools
import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unprompt.errors import UnpromptError
from unprompt.pictures.archives import open_archive
from unprompt.pictures.rows import row_picture
from unprompt.types import Picture

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
"""The file names taken for pictures, compared in lower case."""

MAX_BYTES = 256 * 2**20
"""The largest file, or unpacked member of an archive, that is read."""

MAX_PIXELS = 89_478_485
"""Pillow's own warning threshold (a quarter of a gigabyte of RGB); beyond it a picture is taken for a bomb."""

UNREADABLE = "unreadable"
BOMB = "decompression bomb"
MISSING = "missing"
TOO_LARGE = "too large"

# Named one by one because some of Pillow's other readers start programs (EPS) or follow links (FITS, MIC).
_DECODERS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_CELLS = {"tl": (0, 0), "tr": (1, 0), "bl": (0, 1), "br": (1, 1)}


class PictureError(UnpromptError):
    """A picture cannot be read.

    Attributes:
        reason: "unreadable", "decompression bomb", "missing" or "too large": it becomes `Skipped.reason`.
        detail: what exactly was wrong, on one line.
        uri: the picture, as `Picture.uri` names it.
    """

    def __init__(self, reason: str, detail: str, uri: str = "") -> None:
        super().__init__(reason, detail, uri)  # all three, so that the error survives pickling between processes
        self.reason = reason
        self.detail = " ".join(detail.split())
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason} ({self.detail})" if self.uri else f"{self.reason}: {self.detail}"


def read_bytes(picture: Picture) -> bytes:
    """Reads the picture's encoded bytes from its file or archive.

    Raises:
        PictureError: "missing", "too large" (over `MAX_BYTES`, packed or unpacked) or "unreadable".
    """
    with open_stream(picture) as stream:
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise PictureError(TOO_LARGE, f"more than {MAX_BYTES} bytes", picture.uri)
        return data


@contextmanager
def open_stream(picture: Picture) -> Iterator[IO[bytes]]:
    """Opens the picture's bytes as a seekable stream, for readers that need the header alone.

    Raises:
        PictureError: as `read_bytes`; errors inside the ``with`` block are turned into "unreadable" as well.
    """
    try:
        if picture.member is None and not Path(picture.path).exists():
            picture = row_picture(picture) or picture
        if picture.member is None:
            with Path(picture.path).open("rb") as stream:
                yield stream
        else:
            with _open_member(picture) as stream:
                yield stream
    except FileNotFoundError as error:
        detail = "no such file" if error.strerror else str(error)
        raise PictureError(MISSING, detail, picture.uri) from error
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise PictureError(UNREADABLE, _describe(error), picture.uri) from error


def _open_member(picture: Picture) -> IO[bytes]:
    name = picture.member or ""
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise PictureError(UNREADABLE, "the name inside the archive points outside it", picture.uri)
    archive = open_archive(picture.path)
    try:
        size = archive.size(name)
    except KeyError as error:
        raise PictureError(MISSING, "no such member in the archive", picture.uri) from error
    if size > MAX_BYTES:
        raise PictureError(TOO_LARGE, f"unpacks to {size} bytes, over {MAX_BYTES}", picture.uri)
    return archive.open(name)


def read_size(picture: Picture) -> tuple[int, int]:
    """Reads (width, height) in pixels from the header alone, before EXIF orientation and cell.

    Raises:
        PictureError: as `read_bytes`, or "decompression bomb".
    """
    with open_stream(picture) as stream, open_image(stream, picture.uri) as image:
        width, height = image.size
        return int(width), int(height)


def open_picture(picture: Picture, data: bytes) -> Image.Image:
    """Decodes a picture to 8-bit RGB.

    EXIF orientation is applied, transparency is composited on white, 16-bit and float greys are scaled to 8 bits, the
    first frame of an animation is taken, and a picture with a `cell` is cut down to that quarter (of an odd width or
    height the middle line is dropped, so that all four quarters have one size).

    Args:
        picture: names the picture in errors and holds the cell.
        data: its encoded bytes, from `read_bytes`.

    Raises:
        PictureError: "unreadable" or "decompression bomb".
    """
    if not data:
        raise PictureError(UNREADABLE, "the file is empty", picture.uri)
    try:
        with warnings.catch_warnings(), open_image(io.BytesIO(data), picture.uri) as image:
            warnings.simplefilter("ignore")  # of damaged tags: what matters of them is raised
            image.load()
            upright = _upright(image)
            return _cut(to_rgb(upright), picture)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(BOMB, _describe(error), picture.uri) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise PictureError(UNREADABLE, _describe(error), picture.uri) from error


def open_image(stream: IO[bytes], uri: str) -> Image.Image:
    """Opens the header and refuses bombs before any pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(stream, formats=_available_decoders())
    except Image.DecompressionBombError as error:
        raise PictureError(BOMB, _describe(error), uri) from error
    except UnidentifiedImageError as error:
        raise PictureError(UNREADABLE, f"none of the formats {', '.join(_available_decoders())}", uri) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise PictureError(UNREADABLE, _describe(error), uri) from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(BOMB, f"{image.width} x {image.height} pixels, over {MAX_PIXELS}", uri)
    return image


@functools.cache
def _available_decoders() -> tuple[str, ...]:
    Image.init()  # a Pillow built without AVIF would raise KeyError on its name
    return tuple(name for name in _DECODERS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # broken EXIF must not cost a picture whose pixels are fine
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB: transparency is laid on white, deeper greys are scaled, not clipped."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(np.asarray(image), full=65535.0 if image.mode.startswith("I;16") else None)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(values: np.ndarray, full: float | None) -> Image.Image:
    """Scales (H, W) integers of 16 or 32 bits, or floats, to 8-bit grey.

    ``full`` is the value of white. Where the mode does not say it, the smallest usual range that holds all values is
    taken: 1, 255, 65535, or else the maximum itself.
    """
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    if full is None:
        peak = float(values.max(initial=0.0))
        full = next((limit for limit in (1.0, 255.0, 65535.0) if peak <= limit), peak)
    grey = np.rint(np.clip(values / full, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _cut(image: Image.Image, picture: Picture) -> Image.Image:
    if picture.cell is None:
        return image
    if picture.cell not in _CELLS:
        raise PictureError(UNREADABLE, f"unknown cell {picture.cell!r}, not one of {', '.join(_CELLS)}", picture.uri)
    width, height = image.width // 2, image.height // 2
    if width == 0 or height == 0:
        raise PictureError(UNREADABLE, f"{image.width} x {image.height} pixels cannot be quartered", picture.uri)
    column, row = _CELLS[picture.cell]
    left, top = column * (image.width - width), row * (image.height - height)
    return image.crop((left, top, left + width, top + height))


def _describe(error: BaseException) -> str:
    """The system's words without the path, which the uri already names."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
