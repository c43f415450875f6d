"""How hard a chain of fragments is searched for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChainOptions:
    """How hard a chain is searched for, and what it pays for.

    Attributes:
        first: extensions that are encoded in the first round, where the prediction is best.
        explored: extensions encoded in each of the `explorations` rounds after it, from which the prediction learns,
            and in rounds that follow one without a better chain.
        explorations: see `explored`.
        survivors: extensions encoded in each later round.
        beam: unfinished chains that are kept.
        patience: rounds without a better chain before the search stops.
        cycles: the most times that the chain grows and is refined.
        max_parts: the most fragments.
        max_encoded: prompts after which no new round begins.
        growing: which share of them may be encoded before growing ends, to leave the others to what follows.
        refined: extensions encoded in each round of refinement.
        refinements: the most rounds in a cycle that drop, replace or add a fragment of the grown chain.
        part_cost: what each fragment must bring, in cosine.
        redundancy_cost: the cosine that a fragment must bring besides, times its own greatest cosine with a fragment
            that is there.
        near_duplicate: fragments with at least this cosine to one that is there are not taken; 1 or more for none.
        kind_limits: kind -> the most fragments of it; kinds that are not named have no limit.
    """

    first: int = 32
    explored: int = 112
    explorations: int = 2
    survivors: int = 48
    beam: int = 1
    patience: int = 4
    cycles: int = 4
    max_parts: int = 32
    max_encoded: int = 1300
    growing: float = 0.75
    refined: int = 48
    refinements: int = 8
    part_cost: float = 0.0
    redundancy_cost: float = 0.0
    near_duplicate: float = 2.0
    kind_limits: Mapping[str, int] = field(default_factory=dict)

    def extensions(self, round_: int, stuck: bool) -> int:
        """How many extensions a round encodes; rounds count from 0."""
        if round_ == 0:
            return self.first
        return self.explored if stuck or round_ <= self.explorations else self.survivors
