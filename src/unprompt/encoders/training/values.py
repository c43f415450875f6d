"""The trained part of the memory head: what to say, in text space, for each group and entity."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.training.factors import Factors
from unprompt.encoders.training.objective import PromptLoss

logger = logging.getLogger(__name__)

ALTERNATIONS = 30
RIDGE = 0.1
DUAL_SHRINKAGE = 0.3
FIRST_SHARPNESS = 33.0
FIRST_GAIN = 3.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the values are trained; the learning rate falls linearly to 0.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        lr: of AdamW.
        weight_decay: on values only, not on biases, sharpness or temperatures.
        small_set_weight: how much oftener than a grid crop a picture of a smaller set is drawn.

    """

    epochs: int = 3
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.02
    small_set_weight: float = 2.5


def additive_values(factors: Factors, rows: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Splits prompt embeddings into a group's and an entity's part by alternating ridge regression.

    Args:
        factors: of all examples.
        rows: (n,) examples, one for each distinct prompt.
        texts: (n, dim) their prompts' embeddings.

    Returns:
        (G, dim) and (K, dim), whose sums approximate `texts`.

    """
    group, entity = factors.group[rows], factors.entity[rows]
    of_group = torch.zeros(len(factors.group_family), texts.shape[1])
    of_entity = torch.zeros(len(factors.entity_family), texts.shape[1])
    group_sizes = torch.bincount(group, minlength=len(of_group)).clamp(min=1)[:, None]
    entity_sizes = torch.bincount(entity, minlength=len(of_entity))[:, None] + RIDGE
    for _ in range(ALTERNATIONS):
        of_group = torch.zeros_like(of_group).index_add_(0, group, texts - of_entity[entity]) / group_sizes
        of_entity = torch.zeros_like(of_entity).index_add_(0, entity, texts - of_group[group]) / entity_sizes
    return of_group, of_entity


def dual(values: Tensor) -> Tensor:
    """Entity values as a query should hold them: what they share is weighted down by their inverse covariance."""
    covariance = torch.cov(values.T)
    scale = covariance.diagonal().mean()
    covariance = (1 - DUAL_SHRINKAGE) * covariance + DUAL_SHRINKAGE * scale * torch.eye(len(covariance))
    inverse = torch.linalg.inv(covariance)
    mapped: Tensor = values @ inverse / inverse.diagonal().mean()
    return mapped


@torch.no_grad()
def initialise_values(head: MemoryHead, factors: Factors, rows: Tensor, texts: Tensor) -> None:
    """Sets the values in closed form; see `additive_values` for the arguments."""
    of_group, of_entity = additive_values(factors, rows, texts)
    head.group_values.copy_(of_group)
    head.entity_values.copy_(FIRST_GAIN * dual(of_entity))
    head.group_family.copy_(factors.group_family)
    head.entity_family.copy_(factors.entity_family)
    head.sharpness.fill_(FIRST_SHARPNESS)
    head.family_weight.fill_(0.5)


def train_values(
    head: MemoryHead,
    loss: PromptLoss,
    evidence: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    watch: Callable[[MemoryHead], None] = lambda _: None,
) -> list[float]:
    """Trains values, biases and sharpness on what the memory says of pictures whose prompt it has not seen.

    Args:
        head: with prototypes and first values.
        loss: the objective; its temperatures are trained along.
        evidence: (n,) rows of the examples, their (n, K) leave-one-out scores, and (n, G) group probabilities.
        weights: (n,) how often each is drawn; 0 leaves it out.
        schedule: how long and how fast.
        generator: draws the batches.
        watch: called with the head before the first epoch and after each.

    Returns:
        The loss of each step.

    """
    rows, scores, groups = evidence
    optimiser = _optimiser(head, loss, schedule)
    steps = int((weights > 0).sum()) // schedule.batch_size
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / (steps * schedule.epochs))
    curve: list[float] = []
    watch(head)
    for epoch in range(schedule.epochs):
        drawn = torch.multinomial(weights, steps * schedule.batch_size, replacement=True, generator=generator)
        for batch in drawn.view(steps, schedule.batch_size):
            likely = head.likely(scores[batch], groups[batch])
            current = loss(head.speak(likely, groups[batch]), rows[batch])
            optimiser.zero_grad()
            current.backward()
            optimiser.step()
            decay.step()
            curve.append(current.item())
        logger.info("epoch %d: loss %.4f", epoch + 1, sum(curve[-steps:]) / steps)
        watch(head)
    return curve


def _optimiser(head: MemoryHead, loss: PromptLoss, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW over what `train_values` trains."""
    values = [head.group_values, head.entity_values]
    scalars = [head.entity_bias, head.sharpness, head.family_weight, loss.log_temperatures]
    groups = [{"params": values, "weight_decay": schedule.weight_decay}, {"params": scalars, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.lr)
