"""Decoding: every mode and container, hostile files, zip members."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unprompt.pictures import opening as pictures
from unprompt.pictures.opening import PictureError, open_picture, read_bytes, read_size
from unprompt.types import Picture

ANYWHERE = Picture("a.png")


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decode(data: bytes, cell: str | None = None) -> Image.Image:
    return open_picture(Picture("a.png", cell=cell), data)


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_lossless_formats_keep_their_pixels(format: str) -> None:
    image = Image.new("RGB", (6, 4), (255, 0, 0))
    image.putpixel((5, 3), (0, 0, 255))
    decoded = decode(encode(image, format, **({"lossless": True} if format == "WEBP" else {})))
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


Image.init()
AVIF = pytest.param("AVIF", marks=pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF"))


@pytest.mark.parametrize("format", ["JPEG", AVIF])
def test_lossy_formats_are_near(format: str) -> None:
    decoded = decode(encode(Image.new("RGB", (16, 16), (200, 40, 90)), format))
    assert np.abs(np.asarray(decoded).astype(int) - [200, 40, 90]).max() < 12


def test_transparency_lies_on_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    assert [pixel(decode(encode(half)), x) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_grey_with_alpha_and_palette_with_transparency() -> None:
    assert pixel(decode(encode(Image.new("LA", (1, 1), (0, 0))))) == (255, 255, 255)
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    decoded = decode(encode(palette, transparency=1))
    assert [pixel(decoded, x) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_cmyk_bilevel_and_grey() -> None:
    assert pixel(decode(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"))) == (0, 0, 0)
    assert pixel(decode(encode(Image.new("1", (1, 1), 1)))) == (255, 255, 255)
    assert pixel(decode(encode(Image.new("L", (1, 1), 77)))) == (77, 77, 77)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (65535, 255), (32896, 128), (200, 1)])
def test_16_bit_grey_is_scaled_not_clipped(value: int, grey: int) -> None:
    data = encode(Image.fromarray(np.full((2, 2), value, np.uint16)))
    assert pixel(decode(data)) == (grey, grey, grey)


def test_float_grey_takes_its_range_from_its_values() -> None:
    unit = Image.fromarray(np.array([[0.0, 1.0], [0.5, np.nan]], np.float32))
    assert [pixel(decode(encode(unit, "TIFF")), x, y)[0] for y in (0, 1) for x in (0, 1)] == [0, 255, 128, 0]
    byte = Image.fromarray(np.array([[0.0, 200.0]], np.float32))
    assert pixel(decode(encode(byte, "TIFF")), 1)[0] == 200


def test_exif_orientation_is_applied_and_broken_exif_ignored() -> None:
    image = Image.new("RGB", (4, 2), "black")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(image, "JPEG", exif=exif)).size == (2, 4)
    assert decode(encode(image, "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF")).size == (4, 2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if format == "WEBP" else {}
    assert pixel(decode(encode(frames[0], format, save_all=True, append_images=frames[1:], **options))) == (255, 0, 0)


@pytest.mark.parametrize("size", [(4, 4), (5, 7)])
def test_cells_are_the_quarters(size: tuple[int, int]) -> None:
    grid = Image.new("RGB", size)
    colours = {"tl": (255, 0, 0), "tr": (0, 255, 0), "bl": (0, 0, 255), "br": (9, 9, 9)}
    width, height = size[0] // 2, size[1] // 2
    for cell, colour in colours.items():
        left = 0 if cell[1] == "l" else size[0] - width
        top = 0 if cell[0] == "t" else size[1] - height
        grid.paste(colour, (left, top, left + width, top + height))
    for cell, colour in colours.items():
        quarter = decode(encode(grid), cell)
        assert quarter.size == (width, height)
        assert quarter.getcolors() == [(width * height, colour)]


def test_cells_that_cannot_be_cut() -> None:
    with pytest.raises(PictureError, match="cannot be quartered"):
        decode(encode(Image.new("RGB", (1, 9))), "tl")
    with pytest.raises(PictureError, match="unknown cell 'middle'"):
        decode(encode(Image.new("RGB", (4, 4))), "middle")


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9460, 60_000])
def test_bombs_are_refused_before_decoding(side: int, tmp_path: Path) -> None:
    with pytest.raises(PictureError) as caught:
        decode(bomb(side, side))
    assert caught.value.reason == "decompression bomb"
    (tmp_path / "b.png").write_bytes(bomb(side, side))
    with pytest.raises(PictureError) as caught:
        read_size(Picture(str(tmp_path / "b.png")))
    assert caught.value.reason == "decompression bomb"


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_unreadable(data: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        decode(data)
    assert caught.value.reason == "unreadable"
    assert "0x" not in caught.value.detail  # no memory addresses: reports must be reproducible
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_pictures_are_unreadable(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    with pytest.raises(PictureError) as caught:
        decode(data[: len(data) // 2])
    assert caught.value.reason == "unreadable"


SAMPLES = {
    format: encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)), format)
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
}


@settings(max_examples=150, deadline=None)
@given(
    format=st.sampled_from(sorted(SAMPLES)), edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6)
)
def test_damaged_bytes_give_a_picture_or_a_picture_error(format: str, edits: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLES[format])
    for position, value in edits:
        data[position % len(data)] = value
    with contextlib.suppress(PictureError):  # anything else fails
        assert decode(bytes(data)).mode == "RGB"


def test_read_bytes_of_plain_files(tmp_path: Path) -> None:
    path = tmp_path / "ä picture.png"
    path.write_bytes(b"bytes")
    assert read_bytes(Picture(str(path))) == b"bytes"
    with pytest.raises(PictureError) as caught:
        read_bytes(Picture(str(tmp_path / "gone.png")))
    assert caught.value.reason == "missing"
    with pytest.raises(PictureError) as caught:
        read_bytes(Picture(str(tmp_path)))
    assert caught.value.reason == "unreadable"


def test_read_bytes_of_zip_members(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in/a.png", b"bytes")
    assert read_bytes(Picture(str(path), "in/a.png")) == b"bytes"
    for member, reason in [("in/b.png", "missing"), ("../a.png", "unreadable"), ("/in/a.png", "unreadable")]:
        with pytest.raises(PictureError) as caught:
            read_bytes(Picture(str(path), member))
        assert caught.value.reason == reason


def test_an_archive_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for number, content in enumerate((b"one", b"two")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", content)
        os.utime(path, ns=(number, number))
        assert read_bytes(Picture(str(path), "a.png")) == content


def test_archives_that_are_damaged_or_encrypted(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 nothing more")
    flipped = tmp_path / "flipped.zip"
    with zipfile.ZipFile(flipped, "w") as archive:
        archive.writestr("a.png", b"x" * 100)
    flipped.write_bytes(flipped.read_bytes().replace(b"x" * 100, b"x" * 99 + b"y"))
    for path in (broken, flipped):
        with pytest.raises(PictureError) as caught:
            read_bytes(Picture(str(path), "a.png"))
        assert caught.value.reason == "unreadable"


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(5000))
    monkeypatch.setattr(pictures, "MAX_BYTES", 4999)
    with pytest.raises(PictureError) as caught:
        read_bytes(Picture(str(path), "a.png"))
    assert caught.value.reason == "too large"
    (tmp_path / "b.png").write_bytes(bytes(5000))
    with pytest.raises(PictureError) as caught:
        read_bytes(Picture(str(tmp_path / "b.png")))
    assert caught.value.reason == "too large"


def test_the_limit_is_256_mib() -> None:
    assert pictures.MAX_BYTES == 256 * 1024 * 1024


def test_read_size_reads_the_header_alone(tmp_path: Path) -> None:
    data = encode(Image.new("RGB", (30, 20)))
    (tmp_path / "a.png").write_bytes(data[: data.index(b"IDAT") + 4])
    assert read_size(Picture(str(tmp_path / "a.png"))) == (30, 20)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PictureError("unreadable", "why", "a.png")))
    assert (error.reason, error.detail, str(error)) == ("unreadable", "why", "a.png: unreadable (why)")
