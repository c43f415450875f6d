"""One index of a library on its way from the previous manifest to the next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from unprompt.index.choice import Choice, candidates, choose
from unprompt.index.figures import IndexReport
from unprompt.index.files import sha256_file
from unprompt.index.goal import IndexGoal
from unprompt.index.manifest import IndexInfo
from unprompt.index.on_disk import build_on_disk, extend_on_disk
from unprompt.index.pilot import predict_latencies
from unprompt.index.report import report_on
from unprompt.index.training import Accelerator, Blocks
from unprompt.index.tune import truth_for, tune
from unprompt.index.vector_index import VectorIndex, choose_factory
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings

log = logging.getLogger(__name__)

Queries = Callable[[], "Embeddings | None"]
"""Gives what an index is asked in practice where that is of another kind than its rows, else None."""

_PART = 256 << 20
"""Bytes of lists that are held while an index is built on disk, unless half the limit is less."""


@dataclass(frozen=True)
class IndexOptions:
    """How indexes are made.

    Attributes:
        index: a FAISS factory string, "auto", or None for what the library was built with.
        goal: what "auto" must reach; None for what the library was built with.
        anew: which indexes are made anew though nothing changed, "image" or "text".
        accelerator: trains and fills indexes, None for FAISS on this machine's cores.
    """

    index: str | None = None
    goal: IndexGoal | None = None
    anew: tuple[str, ...] = ()
    accelerator: Accelerator | None = None


class Target:
    """Updates one index from a library's shards and stages it.

    Attributes:
        name: "image" or "text".
        old: what the previous manifest says of it.
        info: what the next one will say; None until `update` and without rows.
        report: what was measured of an approximate index that was made anew.
    """

    def __init__(
        self, writer: LibraryWriter, name: str, options: IndexOptions, rows_removed: bool, share: float = 1.0
    ) -> None:
        """Prepares; `share` is the part of the goal's memory that this index may take."""
        self.name = name
        self.old = writer.previous.indexes.get(name) if writer.previous else None
        self.info: IndexInfo | None = None
        self.report: IndexReport | None = None
        self._writer = writer
        self._rows_removed = rows_removed
        self._anew = name in options.anew
        self._accelerator = options.accelerator
        meant = self._anew or not options.anew
        self._requested = (options.index if meant else None) or (self.old.requested if self.old else "auto")
        kept = IndexGoal.from_dict(self.old.goal) if self.old else IndexGoal()
        self.goal = (options.goal if meant else None) or kept
        memory = self.goal.max_memory
        self._limits = replace(self.goal, max_memory=max(1, int(memory * share)) if memory else None)
        self._chosen: dict[int, Choice] = {}

    @property
    def recall(self) -> float | None:
        """Recall@10 against exact search if the index was made anew, else None."""
        if self.info is None or self.info is self.old or "10" not in self.info.recall:
            return None
        return self.info.recall["10"]

    def appends(self, rows: int) -> bool:
        """Whether the old index, with new rows added, is the new one."""
        return not self._anew and not self._rows_removed and self._keeps(rows)

    def update(self, rows: int, blocks: Blocks, new_blocks: Blocks, queries: Queries = lambda: None) -> None:
        """Makes the index of `rows` rows, and stages it where it differs from the old one.

        Args:
            rows: how many there will be.
            blocks: all rows.
            new_blocks: those that the old index lacks, when it can be appended to.
            queries: see `Queries`; for measuring.
        """
        if not rows:
            return
        if not self._anew and self._keeps(rows):
            self._continue(rows, blocks, new_blocks)
        else:
            self._make(rows, blocks, queries)

    def _keeps(self, rows: int) -> bool:
        """Whether the index of so many rows is of the kind that the old one is, which keeps its training then."""
        old = self.old
        if old is None or self.goal != IndexGoal.from_dict(old.goal):
            return False
        if self._requested != "auto":
            return old.factory == self._requested
        if not self._limited:
            return old.factory == choose_factory(rows)
        if old.on_disk:
            return old.chosen_rows <= rows <= 2 * old.chosen_rows
        fits = {candidate.factory: candidate.bytes for candidate in candidates(old.chosen_rows or rows, self._dim)}
        memory = self._limits.max_memory
        grown = fits.get(old.factory, 0) * rows / max(1, old.chosen_rows)
        return rows <= 2 * old.chosen_rows and (memory is None or grown <= memory)

    def _continue(self, rows: int, blocks: Blocks, new_blocks: Blocks) -> None:
        old = self.old
        assert old is not None
        if old.rows == rows and not self._rows_removed:
            self.info = old if old.requested == self._requested else replace(old, requested=self._requested)
            return
        path, staged = self._writer.path(old.file), self._writer.stage(old.file)
        if old.on_disk and not self._rows_removed:
            extend_on_disk(path, new_blocks(), old.factory, staged, self._part_bytes)
        elif old.on_disk:
            build_on_disk(blocks, rows, self._dim, old.factory, staged, self._part_bytes, self._accelerator)
        else:
            built = VectorIndex.read(path, old.factory, old.parameters)
            if self._rows_removed:
                built.refill(blocks)
            else:
                for block in new_blocks():
                    built.add(block)
            built.write(staged)
        self.info = replace(old, rows=rows, requested=self._requested, recall={})

    def _make(self, rows: int, blocks: Blocks, queries: Queries) -> None:
        choice = self._choose(rows, blocks)
        log.info("%s index: %s, %s", self.name, choice.factory, choice.reason)
        file, dim = f"{self.name}.index", self._dim
        staged = self._writer.stage(file)
        started = time.perf_counter()
        if choice.on_disk:
            arguments = (choice.factory, staged, self._part_bytes, self._accelerator)
            built = build_on_disk(blocks, rows, dim, *arguments)
        else:
            built = VectorIndex.build(blocks, rows, dim, choice.factory, self._accelerator)
        seconds = time.perf_counter() - started
        recall = {"10": 1.0, "100": 1.0}
        if choice.factory != "Flat":
            truth = truth_for(blocks, rows, queries())
            built = built.with_parameters(tune(built, truth, self.goal.recall))
            report = report_on(built, truth, choice.reason, self.goal, seconds)
            recall = {"10": report.figures.recall_10, "100": report.figures.recall_100}
            self.report = report
        if not choice.on_disk:
            built.write(staged)
        if self.report is not None:
            size = staged.stat().st_size
            facts = {"bytes": size, "bytes_per_vector": round(size / rows, 1), "sha256": sha256_file(staged)}
            self.report = replace(self.report, **facts)  # type: ignore[arg-type]
        self.info = IndexInfo(
            file,
            choice.factory,
            len(built),
            built.parameters,
            self._requested,
            goal=self.goal.to_dict(),
            chosen_rows=rows if self._limited else 0,
            on_disk=choice.on_disk,
            recall=recall,
        )

    def _choose(self, rows: int, blocks: Blocks) -> Choice:
        if self._requested != "auto":
            return Choice(self._requested, False, "as asked for")
        measure = partial(predict_latencies, blocks, rows, goal=self._limits)
        return choose(rows, self._dim, self._limits, measure)

    @property
    def _limited(self) -> bool:
        return self.goal.max_memory is not None or self.goal.max_latency is not None

    @property
    def _dim(self) -> int:
        return self._writer.encoder.dim

    @property
    def _part_bytes(self) -> int:
        memory = self._limits.max_memory
        return _PART if memory is None else min(_PART, memory // 2)
