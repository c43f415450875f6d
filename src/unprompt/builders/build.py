"""Building, adding to and removing from a library: the runner in which the whole algorithm can be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from unprompt.builders.decode import Decoded, decode
from unprompt.builders.embed import ShardBuffer
from unprompt.builders.entries import EmbeddedEntry, EmbeddingSource, check_encoder
from unprompt.builders.identity import Ids, KnownRows
from unprompt.builders.report import BuildReport, IndexReport
from unprompt.errors import LibraryError, SourceError
from unprompt.index.library import SKIPPED_FILE
from unprompt.index.manifest import MANIFEST, EncoderInfo, FileInfo, IndexInfo, Manifest
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURES, SERIES, SHARD_SIZE
from unprompt.index.target import IndexOptions
from unprompt.index.writer import LibraryWriter
from unprompt.types import Encoder, Entry, Preprocess, Skipped

BATCH_SIZE = 64

Progress = Callable[[int], object]
"""Called with the number of entries that were dealt with since the last call."""


class Runner(Protocol):
    """Where pictures are decoded and encoded."""

    def decode(
        self, entries: Iterable[Entry | Skipped], preprocess: Preprocess, known: Ids, workers: int
    ) -> Generator[Decoded | Skipped, None, None]:
        """See `unprompt.builders.decode.decode`."""
        ...

    def buffer(self, writer: LibraryWriter, encoder: Encoder, shard_size: int, batch_size: int) -> ShardBuffer:
        """See `ShardBuffer`."""
        ...


class LocalRunner:
    """Decodes in processes of this machine, and encodes in this one."""

    def decode(
        self, entries: Iterable[Entry | Skipped], preprocess: Preprocess, known: Ids, workers: int
    ) -> Generator[Decoded | Skipped, None, None]:
        return decode(entries, preprocess, known, workers)

    def buffer(self, writer: LibraryWriter, encoder: Encoder, shard_size: int, batch_size: int) -> ShardBuffer:
        return ShardBuffer(writer, encoder, shard_size, batch_size)


def build_library(
    sources: Iterable[Iterable[Entry | Skipped]],
    path: Path | str,
    encoder: Encoder,
    *,
    index: str | None = None,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    dtype: str = "float16",
    workers: int | None = None,
    progress: Progress | None = None,
    runner: Runner | None = None,
    options: IndexOptions | None = None,
) -> BuildReport:
    """Builds a library from sources, resumes a build that was interrupted, or adds to a library what it lacks.

    Args:
        sources: what to read, in order.
        path: the library's folder, made when it is not there.
        encoder: embeds pictures and prompts; must be the library's own when there is one already.
        index: a FAISS factory string or "auto"; None for what the library has, "auto" for a new one.
        shard_size: rows a shard, at least 1; a crash loses at most the shard in hand.
        batch_size: pictures a call of the encoder, at least 1.
        dtype: of the stored embeddings, "float16" or "float32"; an existing library keeps its own.
        workers: decoding processes; None for one a core, 4 at most; 0 for none. With workers, a script that calls this
            must guard its own start with ``if __name__ == "__main__":``, as `multiprocessing` asks.
        progress: called as entries are dealt with.
        runner: what decodes and encodes; None for this machine, or `unprompt.builders.cluster.runner.ClusterRunner`.
        options: what "auto" must reach and where indexes are built; its own `index` gives way to the argument.

    Returns:
        What was done.

    Raises:
        LibraryError: the library is locked, of another encoder, or the index cannot be made.
        SourceError: a source cannot be read, holds embeddings of another encoder, or gave nothing at all.
        OSError: the disk is full; the library is as it was, and whole shards are kept for the next run.
    """
    if shard_size < 1 or batch_size < 1:
        raise LibraryError(f"shard size {shard_size} and batch size {batch_size} must be at least 1")
    started = time.perf_counter()
    runner = runner or LocalRunner()
    report = BuildReport(str(path))
    sources = list(sources)
    for source in sources:
        if isinstance(source, EmbeddingSource):
            check_encoder(source, encoder)
    with LibraryWriter(path, encoder_info(encoder), dtype) as writer:
        known = KnownRows(_identities(writer))
        report.resumed = sum(shard.rows for shard in writer.new_shards)
        workers = min(4, os.cpu_count() or 1) if workers is None else workers
        skipped_file = writer.stage(SKIPPED_FILE)
        with (
            skipped_file.open("wb") as skipped,
            closing(runner.decode(chain.from_iterable(sources), encoder.preprocess, known.ids, workers)) as items,
            runner.buffer(writer, encoder, shard_size, batch_size) as buffer,
        ):
            for item in items:
                outcome = _outcome(item, known)
                if isinstance(outcome, Skipped):
                    report.skipped[outcome.reason] += 1
                    line = json.dumps(asdict(outcome), ensure_ascii=False) + "\n"
                    skipped.write(line.encode("utf-8", "replace"))
                elif outcome is None:
                    report.known += 1
                else:
                    buffer.add(outcome)
                    report.pictures += outcome.is_picture
                    report.prompts += not outcome.is_picture
                    report.imported += isinstance(outcome.entry, EmbeddedEntry)
                if progress:
                    progress(1)
            skipped.flush()
            os.fsync(skipped.fileno())
        report.encoding_seconds = time.perf_counter() - started
        _finish(writer, report, index, options)
    report.seconds = time.perf_counter() - started
    return report


def encoder_info(encoder: Encoder) -> EncoderInfo:
    """What a manifest says of an encoder."""
    return EncoderInfo(encoder.name, encoder.fingerprint, encoder.dim, encoder.preprocess.to_dict())


def _outcome(item: Decoded | Skipped, known: KnownRows) -> Decoded | Skipped | None:
    """The row itself when it is new, None when the library has it, or why it is left out."""
    if isinstance(item, Skipped):
        return item
    picture = item.entry.picture
    uri = picture.uri if picture else ""
    claim = known.claim(item.id, uri)
    if claim == "duplicate":
        return Skipped(uri or item.entry.prompt, "duplicate", "the same came before, from another place")
    return None if claim == "known" else item


def _identities(writer: LibraryWriter) -> Iterator[pa.Table]:
    for shard in writer.shards:
        series = SERIES[shard.series]
        yield writer.table(series, shard.number, ["id", "image_path"] if series is PICTURES else ["id"])


def _finish(writer: LibraryWriter, report: BuildReport, index: str | None, options: IndexOptions | None) -> None:
    """Brings the indexes up to date and commits, unless nothing changed."""
    if not writer.shards:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.skipped.items())) or "it is empty"
        raise SourceError(f"no picture or prompt to build {writer.root} from: {reasons}")
    manifest = writer.previous
    if (
        manifest is None
        or writer.new_shards
        or _reindexed(manifest, index, options)
        or _skipped_differs(writer, manifest)
    ):
        made = report.indexes
        manifest = refresh(
            writer, index=index, options=options, report=lambda *facts: made.append(_index_report(*facts))
        )
    else:
        report.indexes = [_index_report(name, info, None) for name, info in manifest.indexes.items()]
    report.totals = dict(manifest.counts)
    report.bytes = sum(info.bytes for info in manifest.files.values()) + (writer.root / MANIFEST).stat().st_size


def _reindexed(manifest: Manifest, index: str | None, options: IndexOptions | None) -> bool:
    goal = options.goal.to_dict() if options and options.goal else None
    infos = manifest.indexes.values()
    return any(index not in (None, info.requested) or goal not in (None, info.goal) for info in infos)


def _skipped_differs(writer: LibraryWriter, manifest: Manifest) -> bool:
    info = manifest.files.get(SKIPPED_FILE)
    return info is None or FileInfo.of(writer.path(SKIPPED_FILE)) != info


def _index_report(name: str, info: IndexInfo, recall: float | None) -> IndexReport:
    return IndexReport(name, info.factory, info.rows, info.parameters, recall)
