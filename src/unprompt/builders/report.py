"""What a build did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class IndexReport:
    """One index: its factory string, rows, search parameters, and recall@10 against exact search if it was measured."""

    name: str
    factory: str
    rows: int
    parameters: str
    recall: float | None


@dataclass
class BuildReport:
    """The figures of one build.

    Attributes:
        library: its folder.
        pictures: rows of pictures added.
        prompts: rows of prompts without pictures added.
        imported: of both, rows whose embeddings were taken as they are.
        known: entries that the library already held.
        resumed: rows taken over from a build that did not finish.
        skipped: entries left out, by reason; ``skipped.jsonl`` in the library lists them.
        seconds: wall-clock time of the whole build.
        encoding_seconds: of that, from the first picture read to the last shard written.
        indexes: what was indexed.
        bytes: size of the library on disk.
        totals: the library's counts afterwards: pictures, distinct prompts, fragments.
    """

    library: str
    pictures: int = 0
    prompts: int = 0
    imported: int = 0
    known: int = 0
    resumed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    encoding_seconds: float = 0.0
    indexes: list[IndexReport] = field(default_factory=list)
    bytes: int = 0
    totals: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain JSON values."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("indexes", "skipped")},
            "skipped": dict(sorted(self.skipped.items())),
            "indexes": [vars(index) for index in self.indexes],
        }
