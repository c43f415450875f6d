"""Tuning, rebuilding and describing the indexes of a finished library. Nothing is encoded again.

The old indexes serve every reader until the new ones are committed; a crash before leaves the library as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unprompt.errors import LibraryError
from unprompt.index.figures import IndexReport, read_reports, write_reports
from unprompt.index.goal import IndexGoal
from unprompt.index.library import PROMPTS_FILE
from unprompt.index.manifest import IndexInfo, Manifest
from unprompt.index.refresh import picture_blocks, picture_queries, pictures_of, prompt_rows, refresh
from unprompt.index.report import report_on
from unprompt.index.shards import SERIES, read_table
from unprompt.index.target import IndexOptions
from unprompt.index.training import Accelerator
from unprompt.index.truth import GroundTruth
from unprompt.index.tune import truth_for, tune
from unprompt.index.vector_index import VectorIndex
from unprompt.index.writer import LibraryWriter

NAMES = ("image", "text")


def rebuild_library(
    path: Path | str,
    index: str | None = None,
    goal: IndexGoal | None = None,
    names: Sequence[str] = NAMES,
    accelerator: Accelerator | None = None,
) -> dict[str, IndexReport]:
    """Makes indexes of a library anew from its shards.

    Args:
        path: the library's folder.
        index: a FAISS factory string, "auto", or None for what it was built with.
        goal: what "auto" must reach; None for what it was built with.
        names: which indexes, of "image" and "text".
        accelerator: see `IndexOptions`.

    Returns:
        The report of each index that was made, exact ones as well.

    Raises:
        LibraryError: there is no such library or index, or it cannot be made.
        OSError: the disk is full; the library is as it was.
    """
    with LibraryWriter(path) as writer:
        present = _present(writer, names)
        refresh(writer, options=IndexOptions(index, goal, tuple(present), accelerator))
        exact = [name for name, info in _present(writer, names).items() if info.factory == "Flat"]
        if exact:
            _measure(writer, exact, None)
    return {name: report for name, report in read_reports(Path(path)).items() if name in present}


def tune_library(path: Path | str, recall: float | None = None, names: Sequence[str] = NAMES) -> dict[str, IndexReport]:
    """Searches for the least search parameters of a library's indexes that reach a recall, and keeps them.

    Args:
        path: the library's folder.
        recall: Recall@10 against exact search; None for what the library was built with.
        names: which indexes, of "image" and "text".

    Returns:
        What each index reaches then; only an index's parameters change, never its file.

    Raises:
        LibraryError: there is no such library or index, or the recall is none.
    """
    with LibraryWriter(path) as writer:
        return _measure(writer, list(_present(writer, names)), recall)


def describe_library(path: Path | str) -> dict[str, tuple[IndexInfo, IndexReport | None]]:
    """A library's indexes with what was last measured of each; None when it is of an earlier index, or was never."""
    manifest = Manifest.read(Path(path))
    reports = read_reports(Path(path))
    found: dict[str, tuple[IndexInfo, IndexReport | None]] = {}
    for name, info in sorted(manifest.indexes.items()):
        report = reports.get(name)
        same = report is not None and report.sha256 == manifest.files[info.file].sha256
        found[name] = (info, report if same and report and report.parameters == info.parameters else None)
    return found


def _measure(writer: LibraryWriter, names: Sequence[str], recall: float | None) -> dict[str, IndexReport]:
    manifest = writer.previous
    assert manifest is not None
    indexes, reports = dict(manifest.indexes), {}
    known = read_reports(writer.root)
    for name in names:
        info = indexes[name]
        file = manifest.files[info.file]
        goal = IndexGoal.from_dict(info.goal)
        goal = goal if recall is None else replace(goal, recall=recall)
        index = VectorIndex.read(writer.path(info.file), info.factory, info.parameters, mapped=True)
        truth = _truth(writer, name, info)
        index = index.with_parameters(tune(index, truth, goal.recall))
        before = known.get(name)
        same = before is not None and before.sha256 == file.sha256
        seconds = before.seconds if before and same else None
        report = report_on(index, truth, before.reason.split(";")[0] if before and same else "as it is", goal, seconds)
        reports[name] = replace(
            report, bytes=file.bytes, bytes_per_vector=round(file.bytes / max(1, info.rows), 1), sha256=file.sha256
        )
        reached = {"10": report.figures.recall_10, "100": report.figures.recall_100}
        indexes[name] = replace(info, parameters=index.parameters, goal=goal.to_dict(), recall=reached)
    if indexes != manifest.indexes:
        of_shards = {file for shard in writer.shards for file in SERIES[shard.series].files(shard.number)}
        writer.commit(manifest.counts, indexes, sorted(set(manifest.files) - of_shards))
    write_reports(writer.root, reports)
    return reports


def _truth(writer: LibraryWriter, name: str, info: IndexInfo) -> GroundTruth:
    if name == "image":
        return truth_for(lambda: picture_blocks(writer, pictures_of(writer.shards)), info.rows)
    prompts = prompt_rows(writer)
    truth = truth_for(lambda: prompts.blocks(writer), len(prompts.counts), picture_queries(writer))
    # An index that was appended to holds the prompts in another order than the shards do: that of its table.
    table = read_table(writer.path(PROMPTS_FILE)).column("prompt").to_pylist()
    rows = {prompt: row for row, prompt in enumerate(table)}
    return truth.renumbered(np.array([rows[prompt] for prompt in prompts.counts], dtype=np.int64))


def _present(writer: LibraryWriter, names: Sequence[str]) -> dict[str, IndexInfo]:
    if writer.new_shards:
        raise LibraryError(f"{writer.root} has shards of an unfinished build; run that build again first")
    indexes = writer.previous.indexes if writer.previous else {}
    found = {name: indexes[name] for name in names if name in indexes}
    if not found:
        raise LibraryError(f"{writer.root} has no {' or '.join(names)} index; it has: {', '.join(indexes) or 'none'}")
    return found
