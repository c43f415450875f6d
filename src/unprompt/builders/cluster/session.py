"""Ray itself: importing it, reaching a cluster, and leaving it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unprompt.errors import LibraryError, SourceError, UnpromptError

RETRIES = 5
"""How often a task starts again whose worker died."""

TIMEOUT = 10.0
"""Seconds within which a cluster's head must answer."""


def load_ray() -> Any:
    """Imports ray.

    Raises:
        LibraryError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a build reports to nobody
    try:
        import ray
    except ImportError as error:
        raise LibraryError(f"ray cannot be imported ({error}); install it with: pip install 'unprompt[ray]'") from None
    return ray


@contextmanager
def ray_cluster(address: str | None = None) -> Iterator[Any]:
    """Connects to a cluster, or starts one of this machine's cores; gives the ray module.

    A connection that the caller has already made is used and left open.

    Args:
        address: of a running cluster's head, "auto" to look for one on this machine, None to start one.

    Raises:
        LibraryError: ray is not installed, or nothing answers at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _check_answers(address)
        ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False,
                 logging_level=logging.WARNING)  # fmt: skip
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LibraryError(
            f"no Ray cluster at {address or 'this machine'} ({reason}); start one with: ray start --head"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Raises OSError when nothing answers at HOST:PORT: Ray itself would try for minutes."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=TIMEOUT).close()


def result_of(ray: Any, reference: Any) -> Any:
    """What a task gave.

    Raises:
        UnpromptError: the task raised one.
        SourceError: its worker died again and again.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UnpromptError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"the cluster lost a task for good ({reason}); run the build again to resume, with a smaller --shard-size "
            "if memory is short"
        ) from None
