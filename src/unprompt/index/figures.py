"""What was measured of a library's indexes, kept beside them.

The manifest says what an index is and is the same for equal libraries; times belong to a machine and a moment, so they
lie in a file of their own that the manifest does not list. It names the sha256 of the index that it speaks of.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unprompt.index.files import write_durably

REPORT_FILE = "index_report.json"


@dataclass(frozen=True)
class Figures:
    """How well and how fast an index answers, k = 10 where not said.

    Attributes:
        recall_10: Recall@10 against exact search on held-out queries, in [0, 1].
        recall_100: Recall@100 likewise.
        p50_ms: the median time of a single query, in milliseconds.
        qps_single: queries a second, one after the other.
        qps_batched: queries a second, all in one call.
        queries: how many there were.
    """

    recall_10: float
    recall_100: float
    p50_ms: float
    qps_single: float
    qps_batched: float
    queries: int


@dataclass(frozen=True)
class IndexReport:
    """One index, how it was made, and what it reaches.

    Attributes:
        factory: its FAISS factory string.
        parameters: its search parameters.
        rows: how many vectors it holds.
        bytes: of its file.
        bytes_per_vector: `bytes` / `rows`.
        seconds: to train and fill it; None where it was only measured.
        reason: why this index, one line.
        figures: what was measured.
        threads: of FAISS while it was measured.
        sha256: of the index's file.
    """

    factory: str
    parameters: str
    rows: int
    bytes: int
    bytes_per_vector: float
    seconds: float | None
    reason: str
    figures: Figures
    threads: int
    sha256: str = ""
    goal: dict[str, Any] = field(default_factory=dict)


def read_reports(root: Path) -> dict[str, IndexReport]:
    """The reports of a library by index; none where the file is missing or damaged: it can be measured again."""
    try:
        data = json.loads((root / REPORT_FILE).read_bytes())
        return {
            str(name): IndexReport(**{**entry, "figures": Figures(**entry["figures"])}) for name, entry in data.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_reports(root: Path, reports: dict[str, IndexReport]) -> None:
    """Replaces the reports that are given and keeps the others."""
    if not reports:
        return
    merged = {**read_reports(root), **reports}
    text = json.dumps({name: asdict(report) for name, report in sorted(merged.items())}, indent=1) + "\n"
    write_durably(root / REPORT_FILE, lambda file: file.write(text.encode()))
