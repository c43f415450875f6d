"""Values that were made lately, kept up to a total size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Makes the value of a name when it is asked for, and keeps those that were asked for last.

    `functools.lru_cache` counts values, which says little where some are a thousand times larger than others. Threads
    may share it; two that miss the same name at once both make its value.

    Args:
        make: gives the value of a name.
        size_of: the bytes that a value takes.
        limit: how many bytes are kept in all. The value asked for last is kept whatever its size.
    """

    def __init__(self, make: Callable[[str], Value], size_of: Callable[[Value], int], limit: int) -> None:
        self._make = make
        self._size_of = size_of
        self._limit = limit
        self._lock = threading.Lock()
        self._values: dict[str, tuple[Value, int]] = {}  # the one asked for last comes last
        self._bytes = 0

    def __call__(self, name: str) -> Value:
        """The value of `name`; what `make` raises is not kept."""
        with self._lock:
            found = self._values.pop(name, None)
            if found is not None:
                self._values[name] = found
                return found[0]
        value = self._make(name)
        with self._lock:
            self._drop(name)
            self._values[name] = (value, self._size_of(value))
            self._bytes += self._values[name][1]
            while self._bytes > self._limit and len(self._values) > 1:
                self._drop(next(iter(self._values)))
        return value

    def _drop(self, name: str) -> None:
        self._bytes -= self._values.pop(name, (None, 0))[1]
