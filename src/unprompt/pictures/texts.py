"""Takes the text chunks out of a picture's file, reading headers only."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from PIL import Image

from unprompt.pictures.opening import open_image, open_stream
from unprompt.types import Picture

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 16 * 2**20
"""Longest text chunk that is read, in bytes, packed and unpacked; ComfyUI's workflows reach a few megabytes."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_IMAGE_DESCRIPTION, _MAKE, _MODEL = 0x010E, 0x010F, 0x0110


def read_texts(source: str | Path | bytes | Picture | Image.Image) -> dict[str, str]:
    """Returns a picture's texts by name: PNG chunks, and EXIF's UserComment as "parameters".

    ComfyUI's "prompt:{...}" and "workflow:{...}" in EXIF's camera fields come under those names. Of two chunks with one
    name the first is kept.

    Raises:
        PictureError, OSError: the picture cannot be opened.
    """
    if isinstance(source, Image.Image):
        texts = {str(key): value for key, value in source.info.items() if isinstance(value, str)}
        return texts | {key: value for key, value in _exif_texts(source).items() if key not in texts}
    if isinstance(source, bytes):
        return _stream_texts(io.BytesIO(source))
    picture = source if isinstance(source, Picture) else Picture(str(source))
    with open_stream(picture) as stream:
        return _stream_texts(stream)


def _stream_texts(stream: IO[bytes]) -> dict[str, str]:
    texts: dict[str, str] = {}
    if stream.read(8) == PNG_SIGNATURE:
        for key, value in _png_texts(stream):
            texts.setdefault(key, value)
        if texts:
            return texts
    stream.seek(0)
    with open_image(stream, "") as image:
        return _exif_texts(image)


def _png_texts(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Walks the chunks after the signature, seeking over everything but text; checksums are not asked for."""
    while len(header := stream.read(8)) == 8:
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind == b"IEND":
            return
        if kind not in (b"tEXt", b"zTXt", b"iTXt") or length > MAX_TEXT:
            stream.seek(length + 4, io.SEEK_CUR)
            continue
        body = stream.read(length)
        stream.seek(4, io.SEEK_CUR)
        try:
            key, value = _decode_chunk(kind, body)
        except (ValueError, zlib.error):
            continue
        yield key, value


def _decode_chunk(kind: bytes, body: bytes) -> tuple[str, str]:
    """Splits a chunk into keyword and text (PNG specification, third edition, section 11.3.3)."""
    key, separator, rest = body.partition(b"\0")
    if not separator or not key:
        raise ValueError("no keyword")
    if kind == b"zTXt":
        rest = _inflate(rest[1:])
    elif kind == b"iTXt":
        packed = rest[:1] == b"\1"
        _language, _, rest = rest[2:].partition(b"\0")
        _translated, _, rest = rest.partition(b"\0")
        rest = _inflate(rest) if packed else rest
    return key.decode("latin-1"), decode_text(rest)


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, MAX_TEXT)
    if inflater.unconsumed_tail:
        raise ValueError(f"unpacks to more than {MAX_TEXT} bytes")
    return text


def decode_text(data: bytes) -> str:
    """UTF-8 where it is valid, else Latin-1: programs write UTF-8 into chunks whose standard says Latin-1."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _exif_texts(image: Image.Image) -> dict[str, str]:
    texts: dict[str, str] = {}
    exif = image.getexif()
    for tag in (_MODEL, _MAKE, _IMAGE_DESCRIPTION):
        value = exif.get(tag)
        text = decode_text(value) if isinstance(value, bytes) else value if isinstance(value, str) else ""
        name, separator, rest = text.strip("\0 ").partition(":")
        if separator and name.lower() in ("prompt", "workflow"):
            texts.setdefault(name.lower(), rest)
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if comment:
        text = decode_user_comment(comment)
        for key, value in _json_strings(text).items():
            texts.setdefault(key, value)
        texts.setdefault("parameters", text)
    return texts


def _json_strings(text: str) -> dict[str, str]:
    """NovelAI's WebP files hold all their PNG chunks as one JSON object of strings."""
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict) or "Comment" not in values:
        return {}
    return {str(key): value for key, value in values.items() if isinstance(value, str)}


def decode_user_comment(value: bytes | str) -> str:
    """Decodes EXIF's UserComment: an 8-byte character code (CIPA DC-008, 4.6.6), then the text.

    The byte order of its UTF-16 is not written anywhere. AUTOMATIC1111 uses big-endian whatever the file's own order
    is, others the file's; since these texts are mostly ASCII, the zero bytes tell.
    """
    if isinstance(value, str):
        return value.strip("\0")
    code, body = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        if body[:2] in (b"\xfe\xff", b"\xff\xfe"):
            return body.decode("utf-16", "replace").strip("\0")
        big_endian = body[0::2].count(0) >= body[1::2].count(0)
        return body.decode("utf-16-be" if big_endian else "utf-16-le", "replace").strip("\0")
    if code.rstrip(b"\0") in (b"ASCII", b"JIS", b""):
        return decode_text(body).strip("\0")
    return decode_text(value).strip("\0")
