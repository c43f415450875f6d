"""What is wanted of an index: recall, memory and latency."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unprompt.errors import LibraryError

RECALL = 0.95
"""Of the ten best rows by exact search, the share that an approximate index must find."""

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class IndexGoal:
    """What an index that is chosen automatically must reach.

    Attributes:
        recall: Recall@10 against exact search, in (0, 1]; search parameters are searched for it.
        max_memory: bytes of main memory that the library's indexes may need in all; None for no limit.
        max_latency: seconds that the median search for one query may take; None for no limit.
    """

    recall: float = RECALL
    max_memory: int | None = None
    max_latency: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise LibraryError(f"a recall of {self.recall} cannot be wanted: use a number above 0 and up to 1")
        if self.max_memory is not None and self.max_memory <= 0:
            raise LibraryError(f"a memory limit of {self.max_memory} bytes leaves nothing: use one such as 8GB")
        if self.max_latency is not None and self.max_latency <= 0:
            raise LibraryError(f"a latency of {self.max_latency} s cannot be reached: use one such as 10ms")

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, for the manifest."""
        return {key: value for key, value in vars(self).items() if value != getattr(IndexGoal, key)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IndexGoal:
        """The goal that `to_dict` gave; what a later version added is ignored."""
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


def parse_bytes(text: str) -> int:
    """Bytes from "8GB", "512 MiB" or "2e9".

    Raises:
        LibraryError: it is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    unit = match[2].upper() if match else ""
    unit = unit if unit.endswith("B") or not unit else unit + "B"
    try:
        return int(float(match[1]) * _BYTES[unit])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        raise LibraryError(f"{text!r} is no size: use one such as 8GB or 512MiB") from None


def parse_seconds(text: str) -> float:
    """Seconds from "10ms", "500us" or "0.5s".

    Raises:
        LibraryError: it is no duration.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*(us|ms|s)\s*", text)
    try:
        return float(match[1]) * _SECONDS[match[2]]  # type: ignore[index]
    except (TypeError, ValueError):
        raise LibraryError(f"{text!r} is no duration: use one such as 10ms or 0.5s") from None
