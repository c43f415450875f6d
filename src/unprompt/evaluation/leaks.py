"""Leaks: queries whose picture or prompt is in the library that is to find it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.evaluation.splits import group_key

if TYPE_CHECKING:
    from unprompt.index.library import Library

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Leaks:
    """Which of N queries are in a library.

    Attributes:
        pictures: (N,) bool, the query's file is there, by its sha256; another quarter of the same grid counts.
        prompts: (N,) bool, a prompt of the same words is there, with or without a picture.
    """

    pictures: NDArray[np.bool_]
    prompts: NDArray[np.bool_]

    @property
    def any(self) -> NDArray[np.bool_]:
        """(N,) bool, either of the two."""
        return self.pictures | self.prompts

    def __str__(self) -> str:
        """One line for a report."""
        return (
            f"{int(self.any.sum())} of {len(self.any)} queries are in the library: "
            f"{int(self.pictures.sum())} by picture, {int(self.prompts.sum())} by prompt"
        )

    def to_dict(self) -> dict[str, Any]:
        """Counts as JSON: queries, leaked, by_picture, by_prompt."""
        return {
            "queries": len(self.any),
            "leaked": int(self.any.sum()),
            "by_picture": int(self.pictures.sum()),
            "by_prompt": int(self.prompts.sum()),
        }


def find_leaks(library: Library, sha256s: Sequence[str | None], prompts: Sequence[str | None]) -> Leaks:
    """Looks for N queries in a library.

    Args:
        library: an open library.
        sha256s: of the queries' files, in hexadecimal; None where it is not known.
        prompts: the queries' true prompts; None where it is not known.

    Raises:
        EvaluationError: the lengths differ.
        LibraryError: a file of the library is missing or damaged.
    """
    if len(sha256s) != len(prompts):
        raise EvaluationError(f"{len(sha256s)} sha256 and {len(prompts)} prompts: give one of each a query")
    held_pictures = _picture_hashes(library)
    keys = [None if prompt is None else group_key(prompt) for prompt in prompts]
    held_prompts = _prompt_keys(library) if any(key is not None for key in keys) else frozenset()
    return Leaks(
        np.array([value is not None and value.lower() in held_pictures for value in sha256s], dtype=np.bool_),
        np.array([key in held_prompts for key in keys], dtype=np.bool_),
    )


def without_leaks(items: Sequence[Item], leaks: Leaks, *, keep: bool = False) -> list[Item]:
    """The items that are not in the library, in their order; all of them when `keep`, with a warning.

    Raises:
        EvaluationError: the lengths differ, or nothing is left.
    """
    leaked = leaks.any
    if len(items) != len(leaked):
        raise EvaluationError(f"{len(items)} queries and leaks of {len(leaked)}: look for the leaks of these queries")
    if leaked.any():
        logger.warning("%s; %s", leaks, "they are kept, figures are too good" if keep else "they are left out")
    left = [item for item, bad in zip(items, leaked.tolist(), strict=True) if keep or not bad]
    if items and not left:
        raise EvaluationError(f"all {len(items)} queries are in the library: use another split, or keep leaks")
    return left


def _picture_hashes(library: Library) -> frozenset[str]:
    from unprompt.index.commit import current
    from unprompt.index.shards import PICTURES, read_table

    found: set[str] = set()
    for shard in library.manifest.shards:
        if shard.series == PICTURES.name:
            file = current(library.path, PICTURES.table_file(shard.number), library.manifest)
            found.update(filter(None, read_table(file, ["sha256"]).column("sha256").to_pylist()))
    return frozenset(found)


def _prompt_keys(library: Library) -> frozenset[str]:
    total = library.manifest.counts.get("prompts", 0)
    return frozenset(group_key(prompt) for prompt, _ in library.prompts(range(total))) if total else frozenset()
