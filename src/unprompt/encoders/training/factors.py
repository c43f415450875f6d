"""A prompt's two factors: the group (what is shown, in which set), the entity (an artist, outfit or modifier)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unprompt.encoders.training.data import Example, prompt_group

FAMILIES = {"sd14-artist-grids": 0, "sd15-artists": 0, "sdxl-fashion": 1, "sd1-modifiers": 2}
"""Sets of one family share entities: both artist sets name the same artists."""


def factor(example: Example) -> tuple[str, str]:
    """The names of an example's group and entity; near-duplicate artists are one entity."""
    if example.set == "sdxl-fashion":
        person, _, outfit = example.prompt.partition(", ")
        return f"{example.set}: {person}", f"outfit: {outfit}"
    if example.artist:
        return f"{example.set}: {example.subject}", f"artist: {prompt_group(example.artist)}"
    subject, _, modifier = example.prompt.partition(", ")
    return f"{example.set}: {subject}", f"modifier: {modifier}"


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of N examples, numbered over those that the training rows show.

    Attributes:
        group: (N,) long; -1 where the training rows do not show it.
        entity: (N,) long; likewise.
        group_family: (G, M) one-hot: the family of each group.
        entity_family: (K, M) 0/1: the families in which each entity occurs.
        group_sets: the set of each group.

    """

    group: Tensor
    entity: Tensor
    group_family: Tensor
    entity_family: Tensor
    group_sets: tuple[str, ...]

    @property
    def pairs(self) -> Tensor:
        """(N,) long: a number for each (group, entity), equal for pictures of the same prompt."""
        return self.group * len(self.entity_family) + self.entity


def factorise(examples: Sequence[Example], train: Tensor) -> Factors:
    """Numbers groups and entities in alphabetical order.

    Args:
        examples: N examples.
        train: (n,) long, the rows that are trained on.

    """
    names = [factor(e) for e in examples]
    shown = [names[i] for i in train.tolist()]
    groups = {name: row for row, name in enumerate(sorted({group for group, _ in shown}))}
    entities = {name: row for row, name in enumerate(sorted({entity for _, entity in shown}))}
    family = torch.tensor([FAMILIES[e.set] for e in examples])
    group = torch.tensor([groups.get(name, -1) for name, _ in names])
    entity = torch.tensor([entities.get(name, -1) for _, name in names])
    one_hot = F.one_hot(family, max(FAMILIES.values()) + 1).float()
    group_family = torch.zeros(len(groups), one_hot.shape[1]).index_put_((group[train],), one_hot[train])
    entity_family = torch.zeros(len(entities), one_hot.shape[1])
    entity_family[entity[train], family[train]] = 1.0
    sets = tuple(name.split(":")[0] for name in groups)
    return Factors(group, entity, group_family, entity_family, sets)
