"""Progress on standard error: a bar with rate and time left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager


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
