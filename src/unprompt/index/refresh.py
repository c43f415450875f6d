"""Bringing a library's indexes up to date with its shards, and committing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unprompt.index.files import write_durably
from unprompt.index.library import PROMPTS_FILE, SKIPPED_FILE
from unprompt.index.manifest import IndexInfo, Manifest, ShardInfo
from unprompt.index.shards import PICTURES, SERIES, as_embeddings, read_table
from unprompt.index.vector_index import Blocks, VectorIndex, choose_factory, recall_against_exact
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE, Vocabulary
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings

PROMPT_TABLE = pa.schema([("prompt", pa.string()), ("count", pa.int64())])

_RECALL_QUERIES = 200
_VOCABULARY_FILES = (FRAGMENTS_FILE, EMBEDDINGS_FILE, CALIBRATION_FILE)


@dataclass
class PromptCounts:
    """Distinct prompts in order of first appearance, their counts, and the rows that were first to hold them."""

    counts: dict[str, int] = field(default_factory=dict)
    first_rows: dict[ShardInfo, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, writer: LibraryWriter, shards: Iterable[ShardInfo]) -> None:
        for shard in shards:
            series = SERIES[shard.series]
            columns = ["caption"] if series is PICTURES else ["caption", "count"]
            table = writer.table(series, shard.number, columns)
            counts = table.column("count").to_pylist() if series is not PICTURES else [1] * table.num_rows
            for row, (prompt, count) in enumerate(zip(table.column("caption").to_pylist(), counts, strict=True)):
                if prompt not in self.counts:
                    self.first_rows[shard].append(row)
                    self.counts[prompt] = 0
                self.counts[prompt] += count

    def blocks(self, writer: LibraryWriter) -> Iterator[Embeddings]:
        """The embeddings of the prompts whose first row was seen by `add`, in order."""
        for shard, rows in self.first_rows.items():
            series = SERIES[shard.series]
            yield as_embeddings(writer.array(series, series.text_array, shard.number)[rows])


def refresh(
    writer: LibraryWriter,
    *,
    index: str | None = None,
    rows_removed: bool = False,
    report: Callable[[str, IndexInfo, float | None], None] | None = None,
) -> Manifest:
    """Updates both indexes and the prompt table from the shards, and commits.

    Args:
        writer: an open writer.
        index: a FAISS factory string, "auto", or None for what the library was built with.
        rows_removed: committed shards were rewritten, so nothing can merely be appended.
        report: called with each index's name, facts, and its recall@10 against exact search when it was built anew.

    Raises:
        LibraryError: the index cannot be made.
        OSError: the disk is full; the library is as it was.
    """
    new = writer.new_shards
    pictures = _Target(writer, "image", index, rows_removed)
    shards = [shard for shard in writer.shards if shard.series == PICTURES.name]
    pictures.update(
        writer.rows(PICTURES),
        lambda: _pictures(writer, shards),
        lambda: _pictures(writer, [shard for shard in new if shard.series == PICTURES.name]),
    )
    texts = _Target(writer, "text", index, rows_removed)
    prompts = _update_prompts(writer, texts, new)
    indexes = {target.name: target.info for target in (pictures, texts) if target.info is not None}
    for target in (pictures, texts):
        if report and target.info is not None:
            report(target.name, target.info, target.recall)
    keep = {info.file for info in indexes.values()} | {PROMPTS_FILE}
    keep |= {name for name in (SKIPPED_FILE, *_VOCABULARY_FILES) if writer.holds(name)}
    fragments = writer.previous.counts.get("fragments", 0) if writer.previous else 0
    counts = {"pictures": writer.rows(PICTURES), "prompts": prompts, "fragments": fragments}
    return writer.commit(counts, indexes, sorted(keep))


def replace_vocabulary(writer: LibraryWriter, vocabulary: Vocabulary) -> Manifest:
    """Commits a new vocabulary into a library and leaves all else as it is."""
    previous = writer.previous
    assert previous is not None
    names = _VOCABULARY_FILES if vocabulary.calibration is not None else _VOCABULARY_FILES[:2]
    vocabulary.write(*[writer.stage(name) for name in names])
    of_shards = {name for shard in writer.shards for name in SERIES[shard.series].files(shard.number)}
    keep = set(previous.files) - of_shards - set(_VOCABULARY_FILES) | set(names)
    return writer.commit({**previous.counts, "fragments": len(vocabulary)}, previous.indexes, sorted(keep))


class _Target:
    """One index on its way from the previous manifest to the next."""

    def __init__(self, writer: LibraryWriter, name: str, index: str | None, rows_removed: bool) -> None:
        self.name = name
        self.info: IndexInfo | None = None
        self.recall: float | None = None
        self._writer = writer
        self.old = writer.previous.indexes.get(name) if writer.previous else None
        self._requested = index or (self.old.requested if self.old else "auto")
        self._rows_removed = rows_removed

    def factory(self, rows: int) -> str:
        return choose_factory(rows) if self._requested == "auto" else self._requested

    def appends(self, rows: int) -> bool:
        """Whether the old index, with new rows added, is the new one."""
        return self.old is not None and self.old.factory == self.factory(rows) and not self._rows_removed

    def update(self, rows: int, blocks: Blocks, new_blocks: Blocks) -> None:
        if not rows:
            return
        file, factory = f"{self.name}.index", self.factory(rows)
        old = self.old
        if old is not None and old.factory == factory:
            if old.rows == rows and not self._rows_removed:
                self.info = old
                return
            built = VectorIndex.read(self._writer.path(old.file), old.factory, old.parameters)
            if self.appends(rows):
                for block in new_blocks():
                    built.add(block)
            else:
                built.refill(blocks)
        else:
            built = VectorIndex.build(blocks, rows, self._writer.encoder.dim, factory)
            exact = factory == "Flat"
            self.recall = 1.0 if exact else recall_against_exact(built, blocks, _sample(blocks, rows))
        built.write(self._writer.stage(file))
        self.info = IndexInfo(file, factory, len(built), built.parameters, self._requested)


def _update_prompts(writer: LibraryWriter, target: _Target, new: list[ShardInfo]) -> int:
    """Stages the prompt table and updates the prompt index; returns how many distinct prompts there are."""
    prompts = PromptCounts()
    if target.old is not None:
        old = read_table(writer.path(PROMPTS_FILE))
        prompts.counts = dict(zip(old.column("prompt").to_pylist(), old.column("count").to_pylist(), strict=True))
    prompts.add(writer, new)
    if target.appends(len(prompts.counts)):
        target.update(len(prompts.counts), lambda: prompts.blocks(writer), lambda: prompts.blocks(writer))
    else:
        # The rows of an index made anew follow the shards, so the table must too.
        prompts = PromptCounts()
        prompts.add(writer, writer.shards)
        target.update(len(prompts.counts), lambda: prompts.blocks(writer), lambda: iter(()))
    columns = [list(prompts.counts), list(prompts.counts.values())]
    table = pa.table(columns, schema=PROMPT_TABLE)
    write_durably(writer.stage(PROMPTS_FILE), lambda file: pq.write_table(table, file, compression="zstd"))
    return len(prompts.counts)


def _pictures(writer: LibraryWriter, shards: Iterable[ShardInfo]) -> Iterator[Embeddings]:
    for shard in shards:
        yield as_embeddings(writer.array(PICTURES, PICTURES.arrays[0], shard.number))


def _sample(blocks: Blocks, rows: int) -> Embeddings:
    step = max(1, rows // _RECALL_QUERIES)
    taken, start = [], 0
    for block in blocks():
        taken.append(block[(np.arange(start, start + len(block)) % step) == 0])
        start += len(block)
    return np.concatenate(taken)[:_RECALL_QUERIES]
