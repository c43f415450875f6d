"""What the first stage finds for each query: all that prompts are then composed of and ranked by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from unprompt.search.queries import Query
from unprompt.search.results import Neighbour, RankedPrompt
from unprompt.search.retrieve import (
    nearest_by_prompt,
    rank_prompts,
    retrieve_neighbours,
    retrieve_prompts,
    same_picture,
)
from unprompt.types import Hit

if TYPE_CHECKING:
    from unprompt.backends.protocol import SearchBackend
    from unprompt.index.library import Library
    from unprompt.index.where import Where

Result = TypeVar("Result")


@runtime_checkable
class Replaceable(Protocol):
    """A backend whose library may be replaced between two searches, see `unprompt.backends.remote.PushedLibrary`."""

    def of_one_push(self, search: Callable[[], Result]) -> Result:
        """What `search` returns, all of it of one library."""
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a library holds for one query.

    Attributes:
        query: what was searched with.
        neighbours: pictures, nearest first.
        near: prompts whose text is near the query, nearest first; a hit's id is its prompt.
        prompts: those of both, fused, best first.
    """

    query: Query
    neighbours: Sequence[Neighbour]
    near: Sequence[Hit]
    prompts: Sequence[RankedPrompt]

    @classmethod
    def of(cls, query: Query, neighbours: Sequence[Neighbour], near: Sequence[Hit]) -> Evidence:
        """Evidence with the prompts fused."""
        return cls(query, neighbours, near, rank_prompts(neighbours, near, query.sha256))

    @property
    def held(self) -> bool:
        """Whether the library holds the query's very file."""
        return bool(same_picture(self.neighbours, self.query.sha256))

    def told(self, k: int) -> list[str]:
        """The prompts of the up to k nearest pictures with distinct ones, nearest first: what captioners are told."""
        return list(nearest_by_prompt(self.neighbours))[:k]

    def within(self, depth: int) -> Evidence:
        """The evidence of a search that looked only so far down each ranking."""
        if max(len(self.neighbours), len(self.near)) <= depth:
            return self
        return Evidence.of(self.query, self.neighbours[:depth], self.near[:depth])


def find_evidence(
    library: Library | SearchBackend, queries: Sequence[Query], depth: int, where: Where | None = None
) -> list[Evidence]:
    """Searches a library for Q queries, `depth` far down each ranking, among the pictures that match `where`."""
    embeddings = np.stack([query.embedding for query in queries])  # (Q, D)

    def search() -> tuple[list[list[Neighbour]], list[list[Hit]]]:
        neighbours = retrieve_neighbours(library, embeddings, depth, where)
        return neighbours, retrieve_prompts(library, embeddings, depth, where)

    neighbours, near = library.of_one_push(search) if isinstance(library, Replaceable) else search()
    return [Evidence.of(*each) for each in zip(queries, neighbours, near, strict=True)]
