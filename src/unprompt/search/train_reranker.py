"""Trains the reranker: weighted ridge regression of sentence cosines, centred picture by picture.

Only how the candidates of one picture compare matters, so terms and targets are taken relative to their means over the
picture, and each picture counts by its weight however many candidates it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.search.reranker import FORMAT, Model, Signals

FEATURES = (
    "cos",
    "nbgap",
    "rrf",
    "con_nb",
    "con_near",
    "con_cap",
    "con_all",
    "iscap",
    "composed",
    "length",
    "length2",
)
GATED = ("cos", "con_nb", "con_near", "con_cap", "con_all", "nbgap", "rrf", "length")
CONTEXTS = ("text_gain", "text_lead", "gap", "agree", "qcap")
RIDGE = 0.02
"""The penalty on weights of terms of unit root mean square."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One training picture: its candidates' signals, and how near each is to the true prompt.

    Attributes:
        signals: of N candidates.
        targets: (N,) sentence cosines with the true prompt.
        weight: how much the picture counts, positive.
    """

    signals: Signals
    targets: NDArray[np.float64]
    weight: float = 1.0


def fit(judged: Sequence[Judged], *, gated: bool = True, scaled: bool = False, ridge: float = RIDGE) -> Model:
    """Fits a model to training pictures.

    Args:
        judged: one or more pictures.
        gated: whether what is known of a picture says how much its features count.
        scaled: see `Model`.
        ridge: the penalty, positive.

    Raises:
        ValueError: there are no pictures, or `ridge` is not positive.
    """
    if not judged or ridge <= 0:
        raise ValueError(f"a reranker of {len(judged)} pictures and ridge {ridge}: give both, above 0")
    contexts = {name: _moments([each.signals.context[name] for each in judged]) for name in CONTEXTS * gated}
    model = Model(FEATURES, GATED if gated else (), contexts, scaled)
    weights = np.array([each.weight for each in judged]) / sum(each.weight for each in judged)
    designs = [model.design(each.signals) for each in judged]
    squares = sum(w * (x**2).mean(axis=0) for w, x in zip(weights, designs, strict=True))
    size = np.sqrt(squares) + 1e-9
    gram, moment = np.zeros((len(size), len(size))), np.zeros(len(size))
    for weight, x, each in zip(weights, designs, judged, strict=True):
        x = x / size
        gram += weight * x.T @ x / len(x)
        moment += weight * x.T @ (each.targets - each.targets.mean()) / len(x)
    solved = np.linalg.solve(gram + ridge * np.eye(len(size)), moment) / size
    return replace(model, weights=tuple(float(weight) for weight in solved.round(6)))


def save(models: Mapping[str, Model], facts: Mapping[str, Any], path: Path) -> None:
    """Writes models by encoder name, with how they came about; `Reranker.load` reads them."""
    found = {name: asdict(model) for name, model in models.items()}
    text = json.dumps({"format": FORMAT, "facts": dict(facts), "models": found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _moments(values: Sequence[float]) -> tuple[float, float]:
    spread = float(np.std(values))
    return round(float(np.mean(values)), 6), round(spread, 6) or 1.0
