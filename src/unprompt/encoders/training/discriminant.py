"""The closed-form part of the memory head: linear discriminants of groups and of entities, and the prototypes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.training.factors import Factors


@dataclass(frozen=True, slots=True)
class Discriminant:
    """How strongly the closed form is regularised; the values won on the development split.

    Attributes:
        group_shrinkage: share of a scaled identity in the within-group covariance.
        group_temperature: divides the groups' log-likelihoods, which high dimensions make overconfident.
        entity_shrinkage: share of a scaled identity in the within-entity covariance.
        width: directions that are kept.
        damping: variance between entities, as a multiple of the 50th largest, at which a direction counts half.
        small_set_weight: what a picture of a smaller set counts in the covariances, a grid crop counting 1.

    """

    group_shrinkage: float = 0.1
    group_temperature: float = 20.0
    entity_shrinkage: float = 0.6
    width: int = 384
    damping: float = 1.0
    small_set_weight: float = 5.0


def class_means(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n, D), (n,) -> (classes, D)."""
    sums = torch.zeros(classes, x.shape[1]).index_add_(0, labels, x)
    return sums / torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]


def shrunk_covariance(x: Tensor, weights: Tensor, shrinkage: float) -> Tensor:
    """The covariance of (n, D) rows of mean 0, weighted by (n,), mixed with the identity scaled to its trace."""
    x = x * (weights / weights.sum()).sqrt()[:, None]
    covariance = x.T @ x
    scale = covariance.diagonal().mean()
    covariance.mul_(1 - shrinkage).diagonal().add_(shrinkage * scale)
    return covariance


@torch.no_grad()
def fit_groups(head: MemoryHead, x: Tensor, labels: Tensor, weights: Tensor, options: Discriminant) -> Tensor:
    """Sets the group classifier to linear discriminant analysis and returns the group means, (G, D)."""
    groups = head.config.groups
    means = class_means(x, labels, groups)
    covariance = shrunk_covariance(x - means[labels], weights, options.group_shrinkage)
    weight = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance)).T  # (G, D)
    prior = torch.bincount(labels, minlength=groups).clamp(min=1).log()
    head.group_weight.copy_(weight / options.group_temperature)
    head.group_bias.copy_(prior - (means * weight).sum(dim=1) / 2 / options.group_temperature)
    return means


@torch.no_grad()
def fit_entities(
    head: MemoryHead, x: Tensor, labels: Tensor, weights: Tensor, group_means: Tensor, options: Discriminant
) -> None:
    """Sets the projection in which pictures of one entity lie together and those of different ones apart."""
    centred = x - head.groups(x) @ group_means
    means = class_means(centred, labels, head.config.entities)  # (K, D)
    factor = torch.linalg.cholesky(shrunk_covariance(centred - means[labels], weights, options.entity_shrinkage))
    white = torch.linalg.solve_triangular(factor, means.T, upper=False).T  # (K, D)
    white = white - white.mean(dim=0)
    # The K x K Gram matrix has the same eigenvalues as the D x D covariance, and is smaller.
    variances, vectors = torch.linalg.eigh(white @ white.T / (len(white) - 1))
    variances, vectors = variances[-options.width :].clamp(min=1e-8), vectors[:, -options.width :]
    directions = F.normalize(white.T @ vectors, dim=0)  # (D, d)
    directions = directions * (variances / (variances + options.damping * variances[-min(50, len(variances))]))
    head.projection.copy_(torch.linalg.solve_triangular(factor.T, directions, upper=True).T)
    head.group_shift.copy_(group_means @ head.projection.T)


@torch.no_grad()
def remember(head: MemoryHead, x: Tensor, factors: Factors, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sets the prototypes, and scores the training pictures as if their own prompt had not been seen.

    A prototype is the mean over an entity's prompts of the mean over the prompt's pictures.

    Args:
        head: with its discriminants fitted.
        x: (n, D) standardised inputs of the training pictures.
        factors: of all examples.
        rows: (n,) the examples that `x` belongs to.

    Returns:
        (n, K) scores in which the own entity's prototype is made from the other prompts only, and (n,) bool: whether
        there are any others.

    """
    places = head.place(x, head.groups(x))  # (n, d)
    entity, entities = factors.entity[rows], head.config.entities
    pair_ids, pair = torch.unique(factors.pairs[rows], return_inverse=True)
    owner = pair_ids % entities  # (pairs,)
    pair_means = F.normalize(class_means(places, pair, len(pair_ids)), dim=1)
    sums = torch.zeros(entities, places.shape[1]).index_add_(0, owner, pair_means)
    head.prototypes.copy_(F.normalize(sums, dim=1))
    scores = places @ head.prototypes.T
    others = F.normalize(sums[entity] - pair_means[pair], dim=1)  # (n, d)
    scores[torch.arange(len(rows)), entity] = (places * others).sum(dim=1)
    return scores, torch.bincount(owner, minlength=entities)[entity] > 1
