"""Pushing a library into a database: resumable, repeatable, and counted in the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from unprompt.backends.blocks import picture_blocks, prompt_blocks
from unprompt.backends.protocol import Row, Store
from unprompt.backends.tables import FACTS, FILES, PICTURES, PROMPTS, Block, facts_row, file_blocks
from unprompt.errors import LibraryError
from unprompt.index.manifest import EncoderInfo, FileInfo, Manifest
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE

if TYPE_CHECKING:
    from unprompt.index.library import Library

log = logging.getLogger(__name__)

FORMAT = 1
INDEXES = ("flat", "hnsw", "ivf")
BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20
_VOCABULARY = (FRAGMENTS_FILE, EMBEDDINGS_FILE, CALIBRATION_FILE)


@dataclass(frozen=True)
class Facts:
    """What a database says of the library that was pushed to it: its manifest, without files, and its index."""

    manifest: Manifest
    index: str

    def to_json(self) -> str:
        facts = {"format": FORMAT, "index": self.index, "encoder": asdict(self.manifest.encoder)}
        facts |= {"dtype": self.manifest.dtype, "counts": dict(self.manifest.counts)}
        facts["files"] = {name: asdict(info) for name, info in self.manifest.files.items()}
        return json.dumps(facts, sort_keys=True)


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
    stopped, and one that is repeated writes nothing.

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
    _check_encoder(library, store)
    names = [name for name in _VOCABULARY if name in library.manifest.files]
    store.prepare(library.dim, index, library.manifest.counts)
    written, kept, total = {}, {}, {}
    sources: dict[str, Callable[[], Iterable[Block]]] = {
        PICTURES: lambda: picture_blocks(library),
        PROMPTS: lambda: prompt_blocks(library),
        FILES: lambda: file_blocks(library, names),
    }
    for table, blocks in sources.items():
        keys: dict[str, int] = {}
        written[table] = sum(_push_block(store, table, block, keys, progress) for block in blocks())
        if table == FILES:
            store.upsert(FILES, [facts_row(_facts(library, names, index).to_json())])
            keys[FACTS] = 1
        store.keep(table, keys)
        store.finish(table, index)
        total[table] = sum(rows for key, rows in keys.items() if key != FACTS)
        kept[table] = total[table] - written[table]
        _verify(store, table, blocks(), sum(keys.values()), index)
    return Pushed(written, kept, total)


def rows_to_push(library: Library) -> int:
    """How many rows a push of all of a library has."""
    names = [name for name in _VOCABULARY if name in library.manifest.files]
    counts = library.manifest.counts
    parts = sum(block.rows for block in file_blocks(library, names))
    return counts.get("pictures", 0) + counts.get("prompts", 0) + parts


def _push_block(
    store: Store, table: str, block: Block, keys: dict[str, int], progress: Callable[[int], object] | None
) -> int:
    """Writes the rows of a block that are missing. Rows are written in order, so those that are there come first."""
    keys[block.key] = block.rows
    there = min(store.count(table, block.key), block.rows)
    if progress:
        progress(there)
    for batch in _batches(block.read(there)):
        store.upsert(table, batch)
        if progress:
            progress(len(batch))
    return block.rows - there


def _verify(store: Store, table: str, blocks: Iterable[Block], expected: int, index: str) -> None:
    """Counts; a block that somebody took rows out of is written again as a whole."""
    if store.count(table) == expected:
        return
    for block in blocks:
        if store.count(table, block.key) != block.rows:
            log.info("writing block %s of %s again", block.key, table)
            for batch in _batches(block.read(0)):
                store.upsert(table, batch)
    store.finish(table, index)
    found = store.count(table)
    if found != expected:
        raise LibraryError(f"{store.shown} has {found} {table} after the push, the library {expected}; push again")


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


def _check_encoder(library: Library, store: Store) -> None:
    facts = read_facts(store)
    if facts is None:
        return
    ours, theirs = library.manifest.encoder, facts.manifest.encoder
    if (ours.fingerprint, ours.dim) != (theirs.fingerprint, theirs.dim):
        raise LibraryError(
            f"{store.shown} holds a library of encoder {theirs.name} ({theirs.fingerprint[:12]}), {library.path} is of "
            f"{ours.name} ({ours.fingerprint[:12]}); push to another name, or with --replace"
        )
