"""Running pieces of work side by side on the cores of one machine, each piece on one core.

torch splits every single operation over its threads, and they wait for each other after each. When anything else wants
a core (the processes that decode pictures, another program), all of them wait for the thread that was held up: on two
busy cores, the starter encoder was seen to fall from 58 pictures a second to 2.5. Whole pieces side by side lose only
what the others take (50 when quiet, 35 when busy), and the result does not depend on how many threads there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def map_side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Applies `function` to each item in as many threads as torch has, each with one core; results in order."""
    return list(_pool(torch.get_num_threads()).map(function, items))


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            started = threading.Barrier(threads + 1)
            pool = ThreadPoolExecutor(threads, "unprompt-encoder", _take_one_core)
            for _ in range(threads):
                pool.submit(started.wait)
            started.wait()
            # Each thread has its own count of threads, but the last one set is also the default of threads to come.
            torch.set_num_threads(threads)
            _pools[threads] = pool
        return _pools[threads]


def _take_one_core() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # fixes this thread's count; left to the first operation, it would take the default then
