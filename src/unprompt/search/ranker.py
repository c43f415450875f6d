"""Ranking the terms of a vocabulary for pictures: exact, in batches, over everything that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import QueryError
from unprompt.search.artist_names import ArtistNames
from unprompt.search.choose import Chooser, Ranking
from unprompt.search.policy import Policy
from unprompt.search.product import product_of
from unprompt.search.rank_options import RankOptions, allowed_terms
from unprompt.search.results import ScoredFragment
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.vocabulary import Vocabulary

__all__ = ["FragmentRanker", "RankOptions", "is_negative"]

BLOCK = 1 << 23
"""Scores of a block, Q x T of them at most (and one query's at least): 32 MiB, and as much for making them."""

PLANS = 4
"""Of which a ranker keeps the rows: 8 bytes a term each."""


class Plan(NamedTuple):
    """What one product serves: lists of terms, which may share them.

    Attributes:
        ranges: the vocabulary's rows that are multiplied.
        rows: (n,) these rows one by one.
        lists: where each list starts and stops in `rows`; rows rise within it.
        hidden: places in `rows` of terms that are not allowed.
    """

    ranges: list[tuple[int, int]]
    rows: NDArray[np.intp]
    lists: list[tuple[int, int]]
    hidden: NDArray[np.intp]


def is_negative(kind: str) -> bool:
    """Whether fragments of this kind say what a picture should not be: "negative" and kinds that begin so."""
    return kind.startswith("negative")


class FragmentRanker:
    """Ranks a vocabulary's terms for batches of pictures.

    One product scores all terms of a block of queries, roughly in large batches (`unprompt.search.product`);
    `unprompt.search.topk` finds the few that may be among the best, and those alone are scored again in float64. The
    result is that of sorting all exact cosines, rounded to float32, with equal scores in stored order, whatever the
    batch, the processor and the threads.

    Args:
        vocabulary: what is ranked.
        options: which terms, and in which order.
        policy: hides terms as well.

    Raises:
        QueryError: a kind or namespace is not in the vocabulary, or the options need a calibration that it lacks.
    """

    def __init__(
        self, vocabulary: Vocabulary, options: RankOptions | None = None, policy: Policy | None = None
    ) -> None:
        self.vocabulary = vocabulary
        self.options = options or RankOptions()
        self.policy = policy or Policy()
        if self.options.needs_calibration and vocabulary.calibration is None:
            raise QueryError("the vocabulary has no percentiles yet: run unprompt vocabulary calibrate")
        self.allowed: NDArray[np.bool_] = allowed_terms(vocabulary, self.options) & self.policy.mask(vocabulary)
        """(T,) False for terms that are in no ranking."""
        ranges = {kind: vocabulary.kind_ranges[kind] for kind in vocabulary.kinds}
        self.kinds = tuple(kind for kind, (start, stop) in ranges.items() if self.allowed[start:stop].any())
        """Kinds that have an allowed term, in the order of `RankOptions.kinds` when it names them."""
        if self.options.kinds is not None:
            self.kinds = tuple(kind for kind in dict.fromkeys(self.options.kinds) if kind in self.kinds)
        self._plans: dict[tuple[tuple[str, ...], ...], Plan] = {}

    def per_kind(self, queries: Embeddings, k: int) -> list[dict[str, list[ScoredFragment]]]:
        """The k best terms of every kind.

        Args:
            queries: (Q, D) float32, L2-normalised.
            k: at least 1.

        Returns:
            For each query, kind -> its terms, best first; fewer than k only where no more are allowed.

        Raises:
            QueryError: `k` is below 1, or the queries are not finite or of another dimension.
        """
        queries = self._check(queries, k)  # also where there is no kind
        ranked = self._rank(queries, [((kind,), k) for kind in self.kinds])
        return [dict(zip(self.kinds, lists, strict=True)) for lists in ranked]

    def per_kind_and_merged(
        self, queries: Embeddings, k: int, merged: int
    ) -> tuple[list[dict[str, list[ScoredFragment]]], list[list[ScoredFragment]]]:
        """What `per_kind` gives for `k` and `merged` for another k, both of one product.

        Raises:
            QueryError: as these.
        """
        together = self._chosen(self._positive)
        kinds = [*together, *filter(is_negative, self.kinds)]  # so that those that are merged lie together
        ranked = self._rank(queries, [(together, merged), *(((kind,), k) for kind in kinds)])
        found = [dict(zip(kinds, lists[1:], strict=True)) for lists in ranked]
        return [{kind: each[kind] for kind in self.kinds} for each in found], [lists[0] for lists in ranked]

    def merged(self, queries: Embeddings, k: int, kinds: Sequence[str] | None = None) -> list[list[ScoredFragment]]:
        """The k best terms of several kinds together; by default of all allowed kinds but negative ones.

        Raises:
            QueryError: as `per_kind`, or a kind is not in the vocabulary.
        """
        wanted = self._positive if kinds is None else kinds
        return [lists[0] for lists in self._rank(queries, [(self._chosen(wanted), k)])]

    def lowest(self, queries: Embeddings, k: int, kinds: Sequence[str]) -> list[list[ScoredFragment]]:
        """The k least similar terms, least similar first: what a negative prompt may be made of.

        The order is by cosine, and thresholds are not applied: they say what fits.

        Raises:
            QueryError: as `merged`.
        """
        return [lists[0] for lists in self._rank(queries, [(self._chosen(kinds), k)], sign=-1)]

    def scores(self, queries: Embeddings) -> NDArray[np.float32]:
        """(Q, T) cosines with every term, those that are not allowed as well."""
        scores: NDArray[np.float32] = self._check(queries, 1) @ self.vocabulary.matrix.T
        return scores

    def clean(self, prompt: str) -> str:
        """A prompt without what the policy forbids, the vocabulary's artists included; see `Policy.clean`."""
        return self.policy.clean(prompt, self._names)

    @property
    def _positive(self) -> list[str]:
        return [kind for kind in self.kinds if not is_negative(kind)]

    @cached_property
    def _names(self) -> ArtistNames:
        return self.policy.names(self.vocabulary)

    @cached_property
    def _written(self) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """(T,) the terms and (T,) what they render, as arrays, from which many are taken at once."""
        terms, count = self.vocabulary.terms, len(self.vocabulary.terms)
        fragments = map(self.vocabulary.fragment, range(count))
        return np.fromiter(terms, np.object_, count), np.fromiter(fragments, np.object_, count)

    @cached_property
    def _best(self) -> Chooser:
        return Chooser(self.vocabulary, self.options)

    @cached_property
    def _least(self) -> Chooser:
        return Chooser(self.vocabulary, self.options, lowest=True)

    def _chosen(self, kinds: Sequence[str]) -> list[str]:
        """The allowed ones of some kinds, in stored order."""
        if not set(kinds) <= set(self.kinds):
            self.vocabulary.check_kinds(kinds)
        return [kind for kind in self.vocabulary.kind_ranges if kind in kinds and kind in self.kinds]

    def _check(self, queries: Embeddings, k: int) -> Embeddings:
        if k < 1:
            raise QueryError(f"k is {k}, use 1 or more")
        dim = self.vocabulary.matrix.shape[1]
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise QueryError(f"queries have shape {queries.shape}, this library's embeddings have {dim} numbers each")
        if not np.isfinite(queries).all():
            raise QueryError("a query's embedding is not finite: encode the picture again")
        return np.ascontiguousarray(queries, dtype=np.float32)

    def _rank(
        self, queries: Embeddings, lists: Sequence[tuple[Sequence[str], int]], sign: int = 1
    ) -> list[list[list[ScoredFragment]]]:
        """For each query the k best of every list of kinds and k; with `sign` -1 the least similar."""
        queries = self._check(queries, min([k for _, k in lists], default=1))
        plan = self._planned(tuple(tuple(kinds) for kinds, _ in lists))
        chooser = self._best if sign > 0 else self._least
        step = max(1, BLOCK // max(1, len(plan.rows)))
        results: list[list[list[ScoredFragment]]] = []
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            scores, error = product_of(self.vocabulary).cosines(block if sign > 0 else -block, plan.ranges)
            scores.hide(plan.hidden)
            found = [
                chooser.choose(block, scores.part(a, b), plan.rows[a:b], k, error)
                for (a, b), (_, k) in zip(plan.lists, lists, strict=True)
            ]
            results += [[self._scored(each[q]) for each in found] for q in range(len(block))]
        return results

    def _planned(self, lists: tuple[tuple[str, ...], ...]) -> Plan:
        """The plan of some lists of kinds; a few are kept, as they are asked for again and again.

        Each list must be a run of the kinds as they are first named.
        """
        plan = self._plans.get(lists)
        if plan is None:
            kinds = list(dict.fromkeys(chain.from_iterable(lists)))
            ranges = [self.vocabulary.kind_ranges[kind] for kind in kinds]
            rows = np.concatenate([np.zeros(0, np.intp), *(np.arange(a, b) for a, b in ranges)])
            places = dict(zip(kinds, pairwise(np.cumsum([0, *(b - a for a, b in ranges)]).tolist()), strict=True))
            spans = [(places[own[0]][0], places[own[-1]][1]) if own else (0, 0) for own in lists]
            plan = Plan(ranges, rows, spans, np.flatnonzero(~self.allowed[rows]))
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[lists] = plan
        return plan

    def _scored(self, ranking: Ranking) -> list[ScoredFragment]:
        rows, scores = ranking
        calibration = self.vocabulary.calibration
        percentiles = repeat(None) if calibration is None else calibration.percentiles(rows, scores).tolist()
        terms, fragments = (column.take(rows).tolist() for column in self._written)
        # As `map(ScoredFragment, ...)`, but without a call of Python for each of thousands: half the time.
        new = partial(tuple.__new__, ScoredFragment)
        return list(map(new, zip(terms, fragments, rows.tolist(), scores.tolist(), percentiles, strict=False)))
