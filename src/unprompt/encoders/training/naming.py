"""The names by which entities are found, and the metric in which a query is turned towards them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.training.data import Example

SHRINKAGE = 0.3
"""Share of a scaled identity in the names' covariance; chosen on the development split."""


def entity_names(examples: Sequence[Example], rows: Tensor, entity: Tensor) -> list[str]:
    """How each entity is written where it first occurs: the artist, else the prompt after its first comma.

    Args:
        examples: N examples.
        rows: (n,) those that are trained on; every entity is among them.
        entity: (N,) see `Factors`.

    """
    names: dict[int, str] = {}
    for i in rows.tolist():
        names.setdefault(int(entity[i]), examples[i].artist or examples[i].prompt.partition(", ")[2])
    return [names[k] for k in range(len(names))]


@torch.no_grad()
def set_names(head: MemoryHead, names: Tensor, group_values: Tensor) -> None:
    """Sets the names, and a metric that leaves the differences between groups alone.

    Args:
        head: to be set.
        names: (K, dim) embeddings of the entities' names.
        group_values: (G, dim) the groups' part of the prompts' embeddings.

    """
    covariance = torch.cov(names.T)
    scale = covariance.diagonal().mean()
    identity = torch.eye(names.shape[1])
    inverse = torch.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * scale * identity)
    differences = group_values - group_values.mean(dim=0)
    kept = torch.linalg.svd(differences, full_matrices=False).Vh[: len(differences) - 1]  # (G - 1, dim)
    free = identity - kept.T @ kept
    head.entity_names.copy_(names)
    head.naming_metric.copy_(free @ (inverse / inverse.diagonal().mean()) @ free)
