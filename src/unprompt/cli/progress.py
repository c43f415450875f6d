"""Progress on standard error: a bar with rate and time left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(label: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Shows a bar while the block runs; the block calls what it is given with the number of units done since."""
    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, total=total, smoothing=0.1, mininterval=0.5, dynamic_ncols=True) as bar:
        yield bar.update


@contextmanager
def counting_bar(label: str, unit: str, sources: Sequence[Iterable[object]]) -> Iterator[Callable[[int], object]]:
    """A bar whose total is counted beside the work, so that a large source starts at once."""
    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, smoothing=0.1, mininterval=0.5, dynamic_ncols=True) as bar:
        stopped = threading.Event()

        def count() -> None:
            total = 0
            for source in sources:
                if isinstance(source, Sized):
                    total += len(source)
                    continue
                for _ in source:
                    total += 1
                    if stopped.is_set():
                        return
            bar.total = total
            bar.refresh()

        threading.Thread(target=count, name="unprompt-counter", daemon=True).start()
        try:
            yield bar.update
        finally:
            stopped.set()


@contextmanager
def step_bars() -> Iterator[Callable[[str, int, int], object]]:
    """One bar after the other, with rate and time left, as each part of the work begins."""
    from tqdm import tqdm

    bar: Any = None

    def progress(what: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.desc != what:
            if bar is not None:
                bar.close()
            bar = tqdm(desc=what, total=total, initial=done, smoothing=0.1, mininterval=0.5, dynamic_ncols=True)
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int], object]]:
    """A bar of bytes, which may be called from several threads."""
    from tqdm import tqdm

    lock = threading.Lock()
    with tqdm(desc=label, unit="B", unit_scale=True, mininterval=0.5, dynamic_ncols=True) as bar:

        def update(count: int) -> None:
            with lock:
                bar.update(count)

        yield update
