"""What `starter` is measured by: does the picture find its own prompt, artist and subject among all of them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.encoders.training.data import SETS, Example
from unprompt.types import Embeddings

Texts = Callable[[Sequence[str]], Embeddings]
Outcomes = NDArray[np.float64]
"""One figure for each query, such as 1 for a hit and 0 for a miss."""

GRID = "sd14-artist-grids"
GRID_SUBJECTS = ("dog", "house", "portrait", "spaceship")
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over `n` queries with its 95% interval, by bootstrap over prompts."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """For a table: value [low, high] (n)."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def hits_at(queries: Embeddings, corpus: Embeddings, true: NDArray[np.int64], k: int = 10) -> Outcomes:
    """1 where fewer than k corpus rows score above the true one, else 0: (N,). Ties are resolved in the query's favour.

    Args:
        queries: (N, D).
        corpus: (M, D).
        true: (N,) rows of the corpus.
        k: cutoff.

    """
    scores = queries @ corpus.T  # (N, M)
    own = scores[np.arange(len(true)), true][:, None]
    hits: Outcomes = ((scores > own + 1e-6).sum(axis=1) < k).astype(np.float64)
    return hits


def bootstrap(outcomes: Outcomes, groups: Sequence[str], seed: int = 0) -> Figure:
    """The mean with its 95% percentile interval; whole groups are drawn: pictures of a prompt are not independent."""
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(inverse, weights=outcomes), np.bincount(inverse).astype(np.float64)
    draws = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.percentile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [2.5, 97.5])
    return Figure(float(outcomes.mean()), float(low), float(high), len(outcomes))


def evaluate(
    examples: Sequence[Example],
    embeddings: Embeddings,
    texts: Texts,
    split: str = "test",
    trained_on: Sequence[str] = ("train", "dev"),
) -> dict[str, dict[str, Figure]]:
    """Measures the pictures of one split against all distinct prompts, artists and subjects of all examples.

    Pictures whose artist training never showed are left out: their name could only be guessed.

    Args:
        examples: all examples, of every split.
        embeddings: (number of examples of this split, D), in their order.
        texts: embeds texts into the same space.
        split: the split that `embeddings` belong to.
        trained_on: the splits whose artists are known.

    Returns:
        For each set its figures: "recall@10" of the prompt, "artist@10", "cosine" with the true prompt, and for the
        grids "subject" and "recall@10, 4 crops" (mean of a grid's four crops as the query).

    """
    chosen = [e for e in examples if e.split == split]
    trained = {e.artist for e in examples if e.split in trained_on}
    corpus = {key: _corpus(examples, key, texts) for key in ("prompt", "artist")}
    figures: dict[str, dict[str, Figure]] = {}
    for name in SETS:
        rows = [i for i, e in enumerate(chosen) if e.set == name and (not e.artist or e.artist in trained)]
        if rows:
            figures[name] = _set_figures([chosen[i] for i in rows], embeddings[rows], corpus, texts)
    return figures


def _corpus(examples: Sequence[Example], key: str, texts: Texts) -> tuple[dict[str, int], Embeddings]:
    """The distinct values of a field, sorted, with their embeddings."""
    values = sorted({getattr(e, key) for e in examples} - {""})
    return {value: row for row, value in enumerate(values)}, texts(values)


def _set_figures(
    examples: list[Example], queries: Embeddings, corpus: dict[str, tuple[dict[str, int], Embeddings]], texts: Texts
) -> dict[str, Figure]:
    groups = [e.prompt for e in examples]
    rows, prompts = corpus["prompt"]
    true = np.array([rows[e.prompt] for e in examples])
    figures = {
        "recall@10": bootstrap(hits_at(queries, prompts, true), groups),
        "cosine": bootstrap((queries * prompts[true]).sum(axis=1).astype(np.float64), groups),
    }
    named = [i for i, e in enumerate(examples) if e.artist]
    if named:
        rows, artists = corpus["artist"]
        found = hits_at(queries[named], artists, np.array([rows[examples[i].artist] for i in named]))
        figures["artist@10"] = bootstrap(found, [groups[i] for i in named])
    if examples[0].set == GRID:
        subjects = np.array([GRID_SUBJECTS.index(e.subject) for e in examples])
        right = (queries @ texts(GRID_SUBJECTS).T).argmax(axis=1) == subjects
        figures["subject"] = bootstrap(right.astype(np.float64), groups)
        averaged = queries.reshape(-1, 4, queries.shape[1]).mean(axis=1)
        figures["recall@10, 4 crops"] = bootstrap(hits_at(averaged, prompts, true[::4]), groups[::4])
    return figures


def to_json(figures: dict[str, dict[str, Figure]]) -> dict[str, Any]:
    """The figures as plain values."""
    return {name: {metric: asdict(figure) for metric, figure in row.items()} for name, row in figures.items()}
