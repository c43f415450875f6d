"""Bringing a library's indexes up to date with its shards, and committing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from unprompt.index.figures import write_reports
from unprompt.index.files import write_durably
from unprompt.index.library import PROMPTS_FILE, SKIPPED_FILE
from unprompt.index.manifest import IndexInfo, Manifest, ShardInfo
from unprompt.index.shards import PICTURES, SERIES, as_embeddings, read_table
from unprompt.index.target import IndexOptions, Target
from unprompt.index.tune import held_out
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE, Vocabulary
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings

PROMPT_TABLE = pa.schema([("prompt", pa.string()), ("count", pa.int64())])

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
    options: IndexOptions | None = None,
) -> Manifest:
    """Updates both indexes and the prompt table from the shards, and commits.

    Args:
        writer: an open writer.
        index: a FAISS factory string, "auto", or None for what the library was built with.
        rows_removed: committed shards were rewritten, so nothing can merely be appended.
        report: called with each index's name, facts, and its recall@10 against exact search when it was built anew.
        options: more of how indexes are made; its `index` gives way to the argument.

    Raises:
        LibraryError: the index cannot be made.
        OSError: the disk is full; the library is as it was.
    """
    options = options or IndexOptions()
    options = replace(options, index=index or options.index)
    new = writer.new_shards
    rows = writer.rows(PICTURES)
    prompts = _known_prompts(writer) or prompt_rows(writer)
    pictures = Target(writer, "image", options, rows_removed, rows / max(1, rows + len(prompts.counts)))
    pictures.update(
        rows,
        lambda: picture_blocks(writer, pictures_of(writer.shards)),
        lambda: picture_blocks(writer, pictures_of(new)),
    )
    texts = Target(writer, "text", options, rows_removed, len(prompts.counts) / max(1, rows + len(prompts.counts)))
    prompts = _update_prompts(writer, texts, prompts)
    indexes = {target.name: target.info for target in (pictures, texts) if target.info is not None}
    for target in (pictures, texts):
        if report and target.info is not None:
            report(target.name, target.info, target.recall)
    keep = {info.file for info in indexes.values()} | {PROMPTS_FILE}
    keep |= {name for name in (SKIPPED_FILE, *_VOCABULARY_FILES) if writer.holds(name)}
    fragments = writer.previous.counts.get("fragments", 0) if writer.previous else 0
    counts = {"pictures": rows, "prompts": len(prompts.counts), "fragments": fragments}
    manifest = writer.commit(counts, indexes, sorted(keep))
    # After the commit: a crash in between leaves a report of another index, which its sha256 tells.
    write_reports(writer.root, {t.name: t.report for t in (pictures, texts) if t.report is not None})
    return manifest


def replace_vocabulary(writer: LibraryWriter, vocabulary: Vocabulary) -> Manifest:
    """Commits a new vocabulary into a library and leaves all else as it is."""
    previous = writer.previous
    assert previous is not None
    names = _VOCABULARY_FILES if vocabulary.calibration is not None else _VOCABULARY_FILES[:2]
    vocabulary.write(*[writer.stage(name) for name in names])
    of_shards = {name for shard in writer.shards for name in SERIES[shard.series].files(shard.number)}
    keep = set(previous.files) - of_shards - set(_VOCABULARY_FILES) | set(names)
    return writer.commit({**previous.counts, "fragments": len(vocabulary)}, previous.indexes, sorted(keep))


def prompt_rows(writer: LibraryWriter) -> PromptCounts:
    """All distinct prompts as an index that is made anew holds them: in order of the shards."""
    prompts = PromptCounts()
    prompts.add(writer, writer.shards)
    return prompts


def pictures_of(shards: Iterable[ShardInfo]) -> list[ShardInfo]:
    """Those shards that hold pictures."""
    return [shard for shard in shards if shard.series == PICTURES.name]


def picture_blocks(writer: LibraryWriter, shards: Iterable[ShardInfo]) -> Iterator[Embeddings]:
    """The embeddings of pictures, a shard at a time."""
    for shard in shards:
        yield as_embeddings(writer.array(PICTURES, PICTURES.arrays[0], shard.number))


def picture_queries(writer: LibraryWriter) -> Embeddings | None:
    """Pictures to ask the prompt index with, as queries do; None when the library has none."""
    shards = pictures_of(writer.shards)
    rows = sum(shard.rows for shard in shards)
    return held_out(lambda: picture_blocks(writer, shards), rows)[0] if rows else None


def _known_prompts(writer: LibraryWriter) -> PromptCounts | None:
    """The prompts of the old index, which keep their rows, and new ones behind; None when there is no old one."""
    if writer.previous is None or "text" not in writer.previous.indexes:
        return None
    old = read_table(writer.path(PROMPTS_FILE))
    prompts = PromptCounts(dict(zip(old.column("prompt").to_pylist(), old.column("count").to_pylist(), strict=True)))
    prompts.add(writer, writer.new_shards)
    return prompts


def _update_prompts(writer: LibraryWriter, target: Target, prompts: PromptCounts) -> PromptCounts:
    """Stages the prompt table and updates the prompt index; returns what the table holds."""
    if target.old is not None and target.appends(len(prompts.counts)):
        target.update(len(prompts.counts), lambda: iter(()), lambda: prompts.blocks(writer))
    else:
        prompts = prompt_rows(writer)
        target.update(
            len(prompts.counts), lambda: prompts.blocks(writer), lambda: iter(()), lambda: picture_queries(writer)
        )
    columns = [list(prompts.counts), list(prompts.counts.values())]
    table = pa.table(columns, schema=PROMPT_TABLE)
    write_durably(writer.stage(PROMPTS_FILE), lambda file: pq.write_table(table, file, compression="zstd"))
    return prompts
