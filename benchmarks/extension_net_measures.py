"""How well networks tell what a term would add to a prompt: the figures of `extension_net.py`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from extension_net_data import Recipe, best
from unprompt.search.extension_net import ExtensionNet
from unprompt.search.words import append
from unprompt.types import Embeddings

RANDOM = 400
"""Terms of the first figures."""
TRIED = 12
"""Of all terms, those whose gains are looked at."""


def measure(
    recipe: Recipe, nets: Mapping[str, ExtensionNet], prompts: Mapping[int, str], features: Embeddings
) -> dict[str, dict[str, float]]:
    """The figures of each network, means over the prompts.

    Gains are in cosine with the picture, and true, by draft embeddings.

    Args:
        recipe: the terms.
        nets: by their names.
        prompts: one of each picture, by its row in `features`.
        features: (Q, D), of the pictures.

    Returns:
        By name: the correlation of expected and true cosines over `RANDOM` terms, the mean gain of the 8 and of the
        24 best expected of these, and the mean and the greatest gain of the `TRIED` best expected of all terms.
    """
    judges = {name: recipe.judge(net) for name, net in nets.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in nets}
    for picture, prompt in prompts.items():
        query = features[picture]
        embedding = recipe.draft_texts([prompt])[0]
        rows = np.random.default_rng([recipe.seed, picture]).choice(recipe.allowed, RANDOM, replace=False)
        true = _gains(recipe, prompt, query, rows)
        for name, judge in judges.items():
            expected = judge(prompt, embedding, query)
            order = np.argsort(-expected[rows], kind="stable")
            chosen = _gains(recipe, prompt, query, best(expected, TRIED))
            correlation = np.corrcoef(expected[rows], true)[0, 1]
            found[name].append([correlation, *(true[order[:k]].mean() for k in (8, 24)), chosen.mean(), chosen.max()])
    keys = ("correlation", "best 8", "best 24", f"best {TRIED} of all", "greatest of these")
    return {name: dict(zip(keys, np.mean(rows, axis=0).tolist(), strict=True)) for name, rows in found.items()}


def _gains(recipe: Recipe, prompt: str, query: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n,) what each of some terms truly adds to a prompt's cosine."""
    [embedding, *longer] = recipe.draft_texts([prompt, *(append(prompt, recipe.texts[row]) for row in rows)])
    gains: NDArray[np.float64] = (np.array(longer) - embedding).astype(np.float64) @ query
    return gains
