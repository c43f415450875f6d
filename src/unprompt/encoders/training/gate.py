"""When the memory is believed: pictures it has not learnt from say how strange a picture of its own kind looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.training.discriminant import class_means

USUAL = 900
"""Directions of the 1,712 means and deviations."""
QUANTILES = {"sd14-artist-grids": 0.99, "sd15-artists": 0.95, "sdxl-fashion": 0.95, "sd1-modifiers": 0.95}
"""The share of a set's own pictures that are less strange than the limit, at which memory and classes are believed
alike; lower where 44 to 228 development pictures cannot tell a 99th percentile."""
SLOPE = 1.5
MARGIN = 0.4
"""Taken off every limit, for the open domain, where the final weights fell just below the best constant without it."""


@dataclass(frozen=True, slots=True)
class Norm:
    """How strange pictures of a set look to a memory that has not learnt from them.

    Attributes:
        mean: of both columns of `MemoryHead.strangeness`.
        deviation: of both.
        limit: the quantile of `QUANTILES` of the sum of both, each standardised.

    """

    mean: tuple[float, float]
    deviation: tuple[float, float]
    limit: float


NORMS: Mapping[str, Norm] = {
    "sd14-artist-grids": Norm(mean=(-2.026, -0.455), deviation=(0.268, 0.119), limit=3.019),
    "sd15-artists": Norm(mean=(-1.903, -0.484), deviation=(0.263, 0.104), limit=2.053),
    "sdxl-fashion": Norm(mean=(-2.319, -0.561), deviation=(0.188, 0.117), limit=2.019),
    "sd1-modifiers": Norm(mean=(-2.005, -0.582), deviation=(0.442, 0.152), limit=3.063),
}
"""Of the development pictures, for a memory of the training split: what `measure_norms` says after ``--choose``."""


@torch.no_grad()
def set_texture(head: MemoryHead, x: Tensor, groups: Tensor, weights: Tensor) -> None:
    """Sets the groups' mean texture and the directions in which pictures of one group usually differ.

    Args:
        head: to be set.
        x: (n, D) standardised inputs of the training pictures.
        groups: (n,) their groups.
        weights: (n,) what each counts.

    """
    c = head.config
    texture = x[:, c.pooled : c.pooled + c.texture]
    means = class_means(texture, groups, c.groups)  # (G, T)
    within = (texture - means[groups]) * (weights / weights.sum()).sqrt()[:, None]
    head.gate_texture.copy_(means)
    head.gate_usual.copy_(torch.linalg.eigh(within.T @ within).eigenvectors[:, c.texture - c.usual :].T)


@torch.no_grad()
def set_gate(head: MemoryHead, sets: Sequence[str], norms: Mapping[str, Norm]) -> None:
    """Sets how strange a picture may be, by the set that each group belongs to.

    Args:
        head: to be set.
        sets: of each group, the name of its set.
        norms: of each set, see `Norm`.

    """
    chosen = [norms[name] for name in sets]
    head.gate_mean.copy_(torch.tensor([norm.mean for norm in chosen]))
    head.gate_scale.copy_(1 / torch.tensor([norm.deviation for norm in chosen]))
    head.gate_limit.copy_(torch.tensor([norm.limit - MARGIN for norm in chosen]))
    head.gate_slope.fill_(SLOPE)


@torch.no_grad()
def measure_norms(head: MemoryHead, x: Tensor, sets: Sequence[str]) -> dict[str, Norm]:
    """What `NORMS` should be.

    Args:
        head: a memory that has not learnt from the pictures.
        x: (n, D) their standardised inputs.
        sets: (n,) the sets they belong to.

    """
    groups = head.groups(x)
    strange = head.strangeness(x, groups, head.scores(x, groups))  # (n, 2)
    norms = {}
    for name, quantile in QUANTILES.items():
        own = strange[torch.tensor([s == name for s in sets])]
        mean, deviation = own.mean(dim=0), own.std(dim=0)
        limit = ((own - mean) / deviation).sum(dim=1).quantile(quantile)
        norms[name] = Norm(_pair(mean), _pair(deviation), round(limit.item(), 3))
    return norms


def _pair(values: Tensor) -> tuple[float, float]:
    first, second = values.tolist()
    return round(first, 3), round(second, 3)
