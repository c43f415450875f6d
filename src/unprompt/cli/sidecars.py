"""Captions beside pictures, as kohya's trainers read them."""

from __future__ import annotations

import os
from pathlib import Path

from unprompt.cli.query_output import printable
from unprompt.errors import QueryError


def check_extension(extension: str) -> str:
    """Returns the extension with its dot.

    Raises:
        QueryError: it holds a path separator, is empty, or is that of a picture.
    """
    from unprompt.pictures.opening import PICTURE_SUFFIXES

    dotted = extension if extension.startswith(".") else f".{extension}"
    if len(dotted) == 1 or os.sep in dotted or dotted.lower() in PICTURE_SUFFIXES:
        raise QueryError(f"the sidecar extension is {extension!r}, use one such as .txt or .caption")
    return dotted


def sidecar_of(image: str, extension: str) -> Path:
    """Where the caption of a picture stands: its name with another extension."""
    return Path(image).with_suffix(extension)


def write_sidecar(image: str, prompt: str, extension: str) -> Path:
    """Writes a picture's caption, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    from unprompt.index.files import write_durably

    path = sidecar_of(image, extension)
    write_durably(path, lambda file: file.write(f"{printable(prompt)}\n".encode()))
    return path
