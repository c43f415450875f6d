"""Downloading parts of DiffusionDB from Hugging Face: resumed where it was cut, and checked against the hub's sha256.

The hub's own client throws away what an interrupted process had downloaded, and does not check sha256 itself.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from unprompt.errors import SourceError
from unprompt.index.files import sha256_file

REPOSITORY = "poloclub/diffusiondb"
ENDPOINT = "https://huggingface.co"
PARTS = {False: 2_000, True: 14_000}
"""How many parts the 2M and the Large set have."""

_PER_FOLDER = 10_000
_LISTED_AT_ONCE = 500
_CHUNK = 1 << 16  # what a broken connection loses at most
_TIMEOUT = 30.0
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Progress = Callable[[int], object]
"""Called with the bytes that came since the last call; below zero when bytes had to be thrown away."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository: its path there, its size in bytes, and the sha256 that the hub has of it."""

    path: str
    size: int
    sha256: str


@dataclass
class FetchReport:
    """What was done: files downloaded, files that were there and whole, and bytes that came over the network."""

    folder: str
    fetched: int = 0
    known: int = 0
    bytes: int = 0
    failures: list[str] = field(default_factory=list)


def parse_parts(text: str, large: bool = False) -> list[int]:
    """Reads part numbers such as "1-100,205", ascending and each once.

    Raises:
        SourceError: not of this form, or a number that the set does not have.
    """
    numbers: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", piece)
        if match is None:
            raise SourceError(f"{text!r} is no list of parts; write 1-100 or 1,5,10-20")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= PARTS[large]:
            raise SourceError(f"parts {piece.strip()} are not there; choose from 1 to {PARTS[large]}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def diffusiondb_paths(parts: Sequence[int], large: bool = False, metadata: bool = True) -> list[str]:
    """Where the repository has the parts, and the table of the whole set."""
    table = ["metadata-large.parquet" if large else "metadata.parquet"] if metadata else []
    folder = "diffusiondb-large-part-{}" if large else "images"
    return table + [f"{folder.format(1 if part <= _PER_FOLDER else 2)}/part-{part:06d}.zip" for part in parts]


def fetch_files(
    paths: Sequence[str],
    folder: Path | str,
    *,
    repository: str = REPOSITORY,
    endpoint: str | None = None,
    workers: int = 4,
    retries: int = 5,
    progress: Progress | None = None,
) -> FetchReport:
    """Downloads files of a data set of the hub into a folder, under their paths there.

    What is there and whole stays; a file that was cut stays as ``NAME.part`` and the next call goes on with it.

    Args:
        paths: of the files in the repository.
        folder: where to put them; made when it is not there.
        repository: "OWNER/NAME" of a data set.
        endpoint: the hub's address; None for the environment variable HF_ENDPOINT, or Hugging Face's own.
        workers: downloads at a time, at least 1.
        retries: how often in a row a file is tried again without a byte gained.
        progress: see `Progress`; it is called from several threads.

    Raises:
        SourceError: the hub cannot be reached, a file is not there, or its content is not what the hub says, after
            all other files were dealt with.
        OSError: the disk is full.
    """
    hub = _Hub(endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT, repository, retries)
    files = hub.files(paths)
    report = FetchReport(str(folder))
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="unprompt-fetch") as pool:
        tasks = {pool.submit(hub.fetch, file, Path(folder), progress or (lambda _: None)): file for file in files}
        try:
            for task in as_completed(tasks):
                try:
                    received = task.result()
                except SourceError as error:
                    report.failures.append(str(error))
                    continue
                report.bytes += received or 0
                report.known += received is None
                report.fetched += received is not None
        except BaseException:  # a full disk, or the user's Ctrl-C: what was received stays for the next run
            hub.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if report.failures:
        count = f"{len(report.failures)} of {len(files)} files failed" if len(files) > 1 else "the download failed"
        raise SourceError(f"{count}: {min(report.failures)}; run the same command again to go on")
    return report


class _Hub:
    """The files of one repository, over HTTP."""

    def __init__(self, endpoint: str, repository: str, retries: int) -> None:
        self.stopped = threading.Event()
        self._endpoint = endpoint.rstrip("/")
        self._repository = repository
        self._retries = retries
        try:
            self._requests: Any = import_module("requests")
        except ImportError:
            raise SourceError("fetch needs the requests library: pip install 'unprompt[fetch]'") from None

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """Asks for sizes and sha256, in the order of `paths`."""
        url = f"{self._endpoint}/api/datasets/{self._repository}/paths-info/main"
        found: dict[str, RemoteFile] = {}
        for start in range(0, len(paths), _LISTED_AT_ONCE):
            for row in self._ask(url, paths[start : start + _LISTED_AT_ONCE]):
                try:
                    found[row["path"]] = RemoteFile(row["path"], int(row["lfs"]["size"]), str(row["lfs"]["oid"]))
                except (KeyError, TypeError, ValueError):
                    raise SourceError(f"{url} names no size and sha256 of {row!r:.80}; is it a hub?") from None
        for path in paths:
            if path not in found:
                raise SourceError(f"{self._repository} at {self._endpoint} has no file {path}")
        return [found[path] for path in paths]

    def _ask(self, url: str, paths: Sequence[str]) -> list[dict[str, Any]]:
        errors = self._requests.exceptions
        for attempt in range(self._retries + 1):
            try:
                response = self._requests.post(url, data={"paths": list(paths), "expand": False}, timeout=_TIMEOUT)
                if response.status_code in _TRANSIENT:
                    raise errors.ConnectionError(f"HTTP {response.status_code}")
                if response.status_code != 200:
                    raise SourceError(
                        f"{url} answers HTTP {response.status_code}; check the repository and HF_ENDPOINT"
                    )
                rows = response.json()
                return list(rows) if isinstance(rows, list) else []
            except errors.JSONDecodeError:
                raise SourceError(f"{url} does not answer with JSON; check HF_ENDPOINT") from None
            except (errors.ConnectionError, errors.Timeout) as error:
                problem = _reason(error)
                if attempt < min(self._retries, 2):
                    self._pause(attempt)
        raise SourceError(
            f"{self._endpoint} cannot be reached ({problem}); fetch needs a network: run it where there is one, or set "
            f"HF_ENDPOINT to a mirror"
        )

    def fetch(self, file: RemoteFile, folder: Path, progress: Progress) -> int | None:
        """Brings one file; returns the bytes received, None when it was there and whole."""
        target = folder / file.path
        if target.is_file() and target.stat().st_size == file.size and sha256_file(target) == file.sha256:
            progress(file.size)
            return None
        part = target.with_name(target.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        kept = part.stat().st_size if part.exists() else 0
        progress(kept)
        received, attempt, problem = 0, 0, ""
        while attempt <= self._retries and not self.stopped.is_set():
            gained = 0
            try:
                for count in self._receive(file, part, progress):
                    gained += count
            except (self._requests.exceptions.RequestException, EOFError) as error:
                problem = _reason(error)
            else:
                problem = self._finish(file, part, target, progress)
                if not problem:
                    return received + gained
                gained = 0  # a file that came whole and wrong is no progress
            received += gained
            attempt = 0 if gained else attempt + 1
            self._pause(attempt)
        raise SourceError(f"{file.path}: {problem or 'stopped'}")

    def _receive(self, file: RemoteFile, part: Path, progress: Progress) -> Any:
        """Appends to the part file what it lacks; gives the number of bytes as they are written."""
        start = part.stat().st_size if part.exists() else 0
        if start >= file.size:
            return
        url = f"{self._endpoint}/datasets/{self._repository}/resolve/main/{file.path}"
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        with self._requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code not in (200, 206):
                if response.status_code in _TRANSIENT or response.status_code == 416:
                    raise EOFError(f"HTTP {response.status_code}")
                raise SourceError(f"{url} answers HTTP {response.status_code}")
            resumed = response.status_code == 206 and f"bytes {start}-" in response.headers.get("Content-Range", "")
            if not resumed:  # the server sends the whole file again
                progress(-start)
            with part.open("ab" if resumed else "wb") as output:
                for chunk in response.iter_content(_CHUNK):
                    output.write(chunk)
                    progress(len(chunk))
                    yield len(chunk)
                    if self.stopped.is_set():
                        raise EOFError("stopped")
        if part.stat().st_size < file.size:
            raise EOFError(f"the connection ended after {part.stat().st_size:,} of {file.size:,} bytes")

    def _finish(self, file: RemoteFile, part: Path, target: Path, progress: Progress) -> str:
        """Moves a whole file to its place, or throws it away and says why."""
        size = part.stat().st_size
        if size == file.size and sha256_file(part) == file.sha256:
            with part.open("rb+") as whole:
                os.fsync(whole.fileno())
            part.replace(target)
            return ""
        part.unlink()
        progress(-size)
        return f"{size:,} bytes came whose sha256 is not the hub's" if size == file.size else f"{size:,} bytes came"

    def _pause(self, attempt: int) -> None:
        self.stopped.wait(min(_PAUSE * 2.0**attempt, _LONGEST_PAUSE))


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: the library's own messages are nested and long."""
    text = " ".join(str(error).split())
    inner = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return inner[-1].strip() if inner else text[:120] or type(error).__name__
