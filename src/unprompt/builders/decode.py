"""Decoding pictures in worker processes, in order, ahead of the encoder."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import connection

import numpy as np

from unprompt.builders.entries import EmbeddedEntry, InlineEntry
from unprompt.builders.identity import Ids, contains, embedded_id, picture_id, prompt_id
from unprompt.errors import SourceError
from unprompt.pictures.opening import MAX_BYTES, TOO_LARGE, PictureError, open_picture, read_bytes
from unprompt.types import Entry, Pixels, Preprocess, Skipped

_TASK_ENTRIES = 8
_TASKS_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Decoded:
    """An entry whose picture was read.

    Attributes:
        entry: as the source gave it.
        id: of its row.
        sha256: of the picture's file, "" for a prompt alone or an imported row.
        size: (width, height) of the picture in pixels.
        pixels: preprocessed for the encoder; None for a prompt alone, or when the library already holds the row.
    """

    entry: Entry
    id: str
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: Pixels | None = None

    @property
    def is_picture(self) -> bool:
        """Whether this is a new row of a picture, to be encoded or imported."""
        return self.pixels is not None or (isinstance(self.entry, EmbeddedEntry) and self.entry.image is not None)


def decode(
    entries: Iterable[Entry | Skipped], preprocess: Preprocess, known: Ids, workers: int
) -> Generator[Decoded | Skipped, None, None]:
    """Reads, hashes and decodes the pictures of `entries`, and gives the results in the same order.

    Entries that need no decoding (prompts alone, imported embeddings) do not go through the processes.

    Args:
        entries: what to read; iterated in a thread of its own.
        preprocess: applied to each picture.
        known: ids whose pictures are hashed but not decoded.
        workers: processes; 0 decodes in this one.

    Raises:
        SourceError: a worker process died, for instance for want of memory.
    """
    if workers == 0:
        for entry in entries:
            yield _decode(entry, preprocess, known)
        return
    # Never fork: a forked worker would inherit torch's threads and the library's lock.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(preprocess, known)) as pool:
        feed = _Feed(pool, entries, ahead=workers * _TASKS_AHEAD)
        try:
            for future in feed:
                yield from future.result()
        except BrokenProcessPool:
            raise SourceError(
                "a decoding process died; run the build again to resume, with fewer --workers if memory is short"
            ) from None
        finally:
            feed.stop()
            pool.shutdown(wait=False, cancel_futures=True)


class _Feed:
    """Iterates entries in a thread and submits them in tasks, a bounded number ahead of whoever takes the results."""

    def __init__(self, pool: ProcessPoolExecutor, entries: Iterable[Entry | Skipped], ahead: int) -> None:
        self._pool = pool
        self._entries = entries
        self._tasks: queue.Queue[Future[list[Decoded | Skipped]] | BaseException | None] = queue.Queue(ahead)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="unprompt-reader", daemon=True).start()

    def __iter__(self) -> Iterator[Future[list[Decoded | Skipped]]]:
        while (task := self._tasks.get()) is not None:
            if isinstance(task, BaseException):
                raise task
            yield task

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        try:
            entries = iter(self._entries)
            while chunk := list(itertools.islice(entries, _TASK_ENTRIES)):
                if not self._put(self._submit(chunk)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _submit(self, chunk: list[Entry | Skipped]) -> Future[list[Decoded | Skipped]]:
        if any(_has_bytes(entry) for entry in chunk):
            return self._pool.submit(_decode_chunk, chunk)
        done: Future[list[Decoded | Skipped]] = Future()
        done.set_result([_without_bytes(entry) for entry in chunk])
        return done

    def _put(self, task: Future[list[Decoded | Skipped]] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._tasks.put(task, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False


_worker: tuple[Preprocess, Ids] | None = None


def _start_worker(preprocess: Preprocess, known: Ids) -> None:
    global _worker
    _worker = (preprocess, known)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    """Ends this worker when the process that started it is gone, however it went."""
    connection.wait([sentinel])
    os._exit(1)


def _decode_chunk(entries: list[Entry | Skipped]) -> list[Decoded | Skipped]:
    assert _worker is not None
    return [_decode(entry, *_worker) for entry in entries]


def _has_bytes(entry: Entry | Skipped) -> bool:
    return not isinstance(entry, Skipped | EmbeddedEntry) and entry.picture is not None


def _without_bytes(entry: Entry | Skipped) -> Decoded | Skipped:
    if isinstance(entry, Skipped):
        return entry
    return Decoded(entry, embedded_id(entry) if isinstance(entry, EmbeddedEntry) else prompt_id(entry))


def _decode(entry: Entry | Skipped, preprocess: Preprocess, known: Ids) -> Decoded | Skipped:
    if isinstance(entry, Skipped | EmbeddedEntry) or entry.picture is None:
        return _without_bytes(entry)
    picture = entry.picture
    try:
        data = entry.data if isinstance(entry, InlineEntry) else read_bytes(picture)
        if len(data) > MAX_BYTES:
            raise PictureError(TOO_LARGE, f"more than {MAX_BYTES} bytes", picture.uri)
        if isinstance(entry, InlineEntry):
            entry = replace(entry, data=b"")  # need not travel back
        sha256 = hashlib.sha256(data).hexdigest()
        identity = picture_id(sha256, entry)
        if contains(known, identity):
            return Decoded(entry, identity, sha256)
        image = open_picture(picture, data)
        pixels = np.ascontiguousarray(preprocess(image))
    except PictureError as error:
        return Skipped(picture.uri, error.reason, error.detail)
    return Decoded(entry, identity, sha256, image.size, pixels)
