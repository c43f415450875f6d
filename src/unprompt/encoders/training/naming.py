"""The names of entities and of what is shown, and the metric in which a query is turned towards the former."""

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


def group_names(examples: Sequence[Example], rows: Tensor, group: Tensor, sets: Sequence[str]) -> list[str]:
    """What each group shows, in words; "" for all groups of a set where one has none, as in the bare "style of X".

    Args:
        examples: N examples.
        rows: (n,) those that are trained on; every group is among them.
        group: (N,) see `Factors`.
        sets: of each group, the name of its set.

    """
    names: dict[int, str] = {}
    for i in rows.tolist():
        example = examples[i]
        names.setdefault(int(group[i]), example.subject if example.artist else example.prompt.partition(", ")[0])
    nameless = {name for k, name in enumerate(sets) if not names[k]}
    return ["" if name in nameless else names[k] for k, name in enumerate(sets)]


@torch.no_grad()
def set_group_names(head: MemoryHead, names: Sequence[str], embeddings: Tensor, sets: Sequence[str]) -> None:
    """Sets what `MemoryHead.show` needs.

    Args:
        head: to be set.
        names: of each group; "" turns no query.
        embeddings: (G, dim) of the names.
        sets: of each group, the name of its set; groups of one set are rivals.

    """
    head.group_names.copy_(embeddings * torch.tensor([[float(bool(name))] for name in names]))
    head.group_rivals.copy_(torch.tensor([[float(a == b) for b in sets] for a in sets]))


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
