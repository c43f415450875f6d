"""Pushing a library into a database: resumable, repeatable, and counted in the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unprompt.backends.blocks import picture_blocks, prompt_blocks
from unprompt.backends.protocol import Row, Store
from unprompt.backends.tables import FACTS, FILES, PICTURES, PROMPTS, TABLES, Block, file_blocks
from unprompt.errors import LibraryError
from unprompt.index.manifest import EncoderInfo, FileInfo, Manifest
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE

if TYPE_CHECKING:
    from unprompt.index.library import Library

log = logging.getLogger(__name__)

FORMAT = 2
INDEXES = ("flat", "hnsw", "ivf")
BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20
_VOCABULARY = (FRAGMENTS_FILE, EMBEDDINGS_FILE, CALIBRATION_FILE)


@dataclass(frozen=True)
class Facts:
    """What a database says of the library that was pushed to it: its manifest, without files, and its index."""

    manifest: Manifest
    index: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "index": self.index,
            "encoder": asdict(self.manifest.encoder),
            "dtype": self.manifest.dtype,
            "counts": dict(self.manifest.counts),
            "files": {name: asdict(info) for name, info in self.manifest.files.items()},
        }


@dataclass(frozen=True)
class Pushed:
    """What a push did: rows of each table that were written, that were there already, and that are there now."""

    written: dict[str, int]
    kept: dict[str, int]
    total: dict[str, int]


def read_facts(store: Store) -> Facts | None:
    """What was pushed to a store; None when no push has finished.

    Raises:
        LibraryError: a newer unprompt pushed it, or it is damaged.
    """
    parts = store.read_file(FACTS)
    if not parts:
        return None
    try:
        data: dict[str, Any] = json.loads(parts[0])
        if int(data["format"]) > FORMAT:
            raise LibraryError(f"{store.shown} was pushed by a newer unprompt; upgrade unprompt")
        files = {str(name): FileInfo(**info) for name, info in data["files"].items() if name in _VOCABULARY}
        encoder = EncoderInfo(**data["encoder"])
        counts = {str(name): int(count) for name, count in data["counts"].items()}
        return Facts(Manifest(encoder, str(data["dtype"]), counts, files=files), str(data["index"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LibraryError(f"{store.shown} holds no readable facts ({error}); push with --replace") from None


def push(
    library: Library,
    store: Store,
    index: str = "hnsw",
    replace: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Pushed:
    """Makes a store hold exactly what a library holds: pictures, prompts, and the vocabulary.

    What is there already, by the hash of its content, is left alone; so a push that was interrupted goes on where it
    stopped, and one that is repeated writes nothing. While it runs, and should it be interrupted, a library that was
    pushed there before is served as it was; the new one takes its place at once, in the end.

    Args:
        library: an open library.
        store: where to.
        index: "flat" for exact search, "hnsw" or "ivf" for approximate.
        replace: delete what is there first.
        progress: called with how many of `rows_to_push` are done since.

    Raises:
        LibraryError: the store holds a library of another encoder, cannot be written, or does not hold what it should
            in the end.
    """
    if index not in INDEXES:
        raise LibraryError(f"unknown index {index!r}: use {', '.join(INDEXES)}")
    if replace:
        store.drop()
    served = _served(library, store)
    names = [name for name in _VOCABULARY if name in library.manifest.files]
    store.prepare(library.dim, index, {table: library.manifest.counts.get(table, 0) for table in TABLES})
    sources: dict[str, Callable[[], Iterable[Block]]] = {
        PICTURES: lambda: picture_blocks(library),
        PROMPTS: lambda: prompt_blocks(library),
        FILES: lambda: file_blocks(library, names),
    }
    parts: dict[str, _Part] = {}
    for table, blocks in sources.items():
        apart = False
        if served is not None and table != FILES:  # nobody reads a file before the facts name it
            apart = not store.stages_whole or served.index != index or _differs(store, table, blocks())
        to = _staging(store, library, index, table) if apart else store
        parts[table] = _write(to, None if apart and store.stages_whole else store, table, blocks, progress)
    there = {table: [*part.keys, *([FACTS] if table == FILES else [])] for table, part in parts.items()}
    staged = [table for table, part in parts.items() if part.to is not store]
    store.publish(index, _facts(library, names, index).to_dict(), there, staged)
    return _counted(store, parts)


@dataclass
class _Part:
    """What was done about one table.

    Attributes:
        to: where its rows were written.
        keys: the blocks of the library, with their rows.
        placed: those of them that were to be at `to`.
        written: rows.
    """

    to: Store
    keys: dict[str, int]
    placed: dict[str, int]
    written: int = 0


def _write(
    to: Store,
    has: Store | None,
    table: str,
    blocks: Callable[[], Iterable[Block]],
    progress: Callable[[int], object] | None,
) -> _Part:
    """Writes the blocks that the store `has` lacks into another, or the same."""
    part = _Part(to, {}, {})
    for block in blocks():
        part.keys[block.key] = block.rows
        if has is not None and has is not to and has.count(table, block.key) == block.rows:
            if progress:
                progress(block.rows)
            continue
        part.placed[block.key] = block.rows
        part.written += _push_block(to, table, block, progress)
    if table != FILES:
        to.keep(table, part.placed)
    _mend(to, table, blocks, part.placed)
    return part


def _staging(store: Store, library: Library, index: str, table: str) -> Store:
    staging = store.staging()
    staging.prepare(library.dim, index, {table: library.manifest.counts.get(table, 0)})
    return staging


def _differs(store: Store, table: str, blocks: Iterable[Block]) -> bool:
    """Whether a table is not exactly these blocks."""
    total = 0
    for block in blocks:
        if store.count(table, block.key) != block.rows:
            return True
        total += block.rows
    return store.count(table) != total


def _counted(store: Store, parts: Mapping[str, _Part]) -> Pushed:
    """What was done, after a last look at what is there now."""
    for table, part in parts.items():
        found, expected = store.count(table), sum(part.keys.values()) + (table == FILES)
        if found != expected:
            raise LibraryError(f"{store.shown} has {found} {table} after the push, the library {expected}; push again")
    written = {table: part.written for table, part in parts.items()}
    total = {table: sum(part.keys.values()) for table, part in parts.items()}
    return Pushed(written, {table: total[table] - written[table] for table in parts}, total)


def rows_to_push(library: Library) -> int:
    """How many rows a push of all of a library has."""
    names = [name for name in _VOCABULARY if name in library.manifest.files]
    counts = library.manifest.counts
    parts = sum(block.rows for block in file_blocks(library, names))
    return counts.get("pictures", 0) + counts.get("prompts", 0) + parts


def _push_block(store: Store, table: str, block: Block, progress: Callable[[int], object] | None) -> int:
    """Writes the rows of a block that are missing. Rows are written in order, so those that are there come first."""
    there = min(store.count(table, block.key), block.rows)
    if progress:
        progress(there)
    for batch in _batches(block.read(there)):
        store.upsert(table, batch)
        if progress:
            progress(len(batch))
    return block.rows - there


def _mend(store: Store, table: str, blocks: Callable[[], Iterable[Block]], placed: Mapping[str, int]) -> None:
    """Counts; a block that somebody took rows out of is written again as a whole."""
    short = {key for key, rows in placed.items() if store.count(table, key) != rows}
    for block in blocks() if short else ():
        if block.key in short:
            log.info("writing block %s of %s again", block.key, table)
            for batch in _batches(block.read(0)):
                store.upsert(table, batch)


def _batches(rows: Iterator[Row]) -> Iterator[Sequence[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        size += getattr(row.get("embedding"), "nbytes", 0)
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _facts(library: Library, names: Sequence[str], index: str) -> Facts:
    manifest = library.manifest
    files = {name: manifest.files[name] for name in names}
    return Facts(Manifest(manifest.encoder, manifest.dtype, dict(manifest.counts), files=files), index)


def _served(library: Library, store: Store) -> Facts | None:
    """What is pushed there already; it must be of the same encoder."""
    facts = read_facts(store)
    if facts is None:
        return None
    ours, theirs = library.manifest.encoder, facts.manifest.encoder
    if (ours.fingerprint, ours.dim) != (theirs.fingerprint, theirs.dim):
        raise LibraryError(
            f"{store.shown} holds a library of encoder {theirs.name} ({theirs.fingerprint[:12]}), {library.path} is of "
            f"{ours.name} ({ours.fingerprint[:12]}); push to another name, or with --replace"
        )
    return facts
