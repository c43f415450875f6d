"""What appending each term of a vocabulary does to prompts, as features that a gain is nearly linear in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from unprompt.types import Embeddings

if TYPE_CHECKING:
    from torch import Tensor

    from unprompt.index.vocabulary import Vocabulary

WIDTH = 256
"""The most features: of 768, those in which terms differ most. All 768 predicted no better (correlation 0.90, 0.89)."""

SAMPLE = 8192
"""Terms from which those are found."""

ROWS = 512
"""Terms whose features are made at a time on a core: those of all, before they are reduced, would take three times the
result."""

_effects: WeakKeyDictionary[Vocabulary, Embeddings] = WeakKeyDictionary()


def effects_of(vocabulary: Vocabulary, contexts: Callable[[], NDArray[np.floating[Any]] | None]) -> Embeddings:
    """`term_effects` of a vocabulary's terms, made once, when they are first asked for."""
    if vocabulary not in _effects:
        _effects[vocabulary] = term_effects(vocabulary.matrix, contexts())
    return _effects[vocabulary]


def term_effects(
    embeddings: NDArray[np.floating[Any]], contexts: NDArray[np.floating[Any]] | None = None
) -> Embeddings:
    """Features of T terms.

    How much a term adds to a long prompt's cosine with a query depends on the term in a way that hardly any other
    prompt shares with it by the term's own embedding: short words of little meaning ("this is it", "him") often add
    more than what is near the query. On two prompts of six and nine parts, what each of 111,867 terms adds was
    predicted from 1,000 of them, by ridge regression, with a correlation of 0.81 from the terms' embeddings, and of
    0.90 from these features with `contexts`.

    Args:
        embeddings: (T, D), the terms'.
        contexts: (T, D), those of the terms at the end of a prompt (`unprompt.index.contexts`); None where they are not
            known.

    Returns:
        (T, F) float32, with F <= `WIDTH`: the principal components of both, each first centred and scaled to a mean
        square length of 1.
    """
    import torch

    from unprompt.encoders.parallel import map_side_by_side

    tables = [_Scaled.of(table) for table in (embeddings, contexts) if table is not None]
    terms = len(embeddings)
    # Each on one core, so that no bit depends on how many there are, and with torch: NumPy's threads would keep waiting
    # for more on the cores that the encoder needs next.
    [axes] = map_side_by_side(_axes, [_features(tables, slice(None, None, max(1, terms // SAMPLE)))])
    effects = np.empty((terms, axes.shape[1]), dtype=np.float32)

    def reduce(part: slice) -> None:
        effects[part] = (torch.tensor(_features(tables, part)) @ axes).numpy()

    map_side_by_side(reduce, _parts(terms))
    return effects


def _axes(sample: NDArray[np.float32]) -> Tensor:
    """The axes (D, F) of n rows (n, D) with the largest principal components, float32, the largest last."""
    import torch

    rows = torch.tensor(sample, dtype=torch.float64)
    axes: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return axes[:, -WIDTH:].float()


class _Scaled(NamedTuple):
    """A table (T, D), of which single rows are centred and scaled as all of them together ask for."""

    table: NDArray[np.floating[Any]]
    mean: NDArray[np.float32]
    length: np.float32

    @classmethod
    def of(cls, table: NDArray[np.floating[Any]]) -> _Scaled:
        if not len(table):
            return cls(table, np.zeros(table.shape[1], dtype=np.float32), np.float32(1))
        mean = table.mean(axis=0, dtype=np.float32)
        squares = [np.square(_centred(table, mean, part)).sum(axis=1) for part in _parts(len(table))]
        return cls(table, mean, np.float32(max(np.sqrt(np.concatenate(squares).mean()), 1e-6)))

    def rows(self, part: slice) -> NDArray[np.float32]:
        return _centred(self.table, self.mean, part) / self.length


def _centred(table: NDArray[np.floating[Any]], mean: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
    return np.asarray(table[part] - mean, dtype=np.float32)


def _features(tables: list[_Scaled], part: slice) -> NDArray[np.float32]:
    return np.hstack([table.rows(part) for table in tables])


def _parts(terms: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, terms, ROWS)]
