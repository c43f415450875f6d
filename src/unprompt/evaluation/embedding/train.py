"""Trains a head by cosine loss, and chooses how it is mixed with neighbours."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unprompt.encoders.parallel import map_side_by_side
from unprompt.errors import EvaluationError
from unprompt.evaluation.embedding.features import Looked
from unprompt.evaluation.embedding.head import (
    EmbeddingHead,
    HeadConfig,
    Mixing,
    load_embedding_head,
    save_embedding_head,
)
from unprompt.evaluation.embedding.neighbours import mix, weighted_mean
from unprompt.evaluation.embedding.predict import apply_head
from unprompt.evaluation.metrics.sentence_cosine import cosines
from unprompt.types import Embeddings

logger = logging.getLogger(__name__)

NEIGHBOURS = (10, 30, 100, 300, 1000)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""What is tried on the development split."""
_CHUNK = 128
_STEPS, _SMALLEST = 16, 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a head besides the data: AdamW, linear warm-up, cosine decay to 0.

    Attributes:
        seed: of the weights, the order and dropout.
        hidden: width of the hidden layer.
        input_dropout: share of the standardised features that is left out at each step.
        dropout: of the hidden layer.
        learning_rate: its peak.
        weight_decay: of all weights.
        epochs: passes over the pictures.
        batch: pictures a step, fewer where there are few: an epoch has 16 steps, as far as batches of 16 allow.
        warmup: steps, a tenth of all at most.
    """

    seed: int = 0
    hidden: int = 448
    input_dropout: float = 0.5
    dropout: float = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    epochs: int = 24
    batch: int = 256
    warmup: int = 50

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def size(self, pictures: int) -> int:
        """The pictures of one step of so many."""
        return min(self.batch, max(_SMALLEST, pictures // _STEPS))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of one step of so many."""
        warmup = min(self.warmup, max(1, steps // 10))
        return self.learning_rate * min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True, slots=True)
class Source:
    """What makes a head's features; see `HeadConfig`."""

    encoder: str
    fingerprint: str
    inputs: tuple[str, ...] = ()


def train_head(
    features: NDArray[np.floating[Any]],
    targets: Embeddings,
    source: Source,
    recipe: Recipe = Recipe(),
    progress: Callable[[int], object] = lambda steps: None,
) -> tuple[EmbeddingHead, list[float]]:
    """Fits a head so that its cosine with the targets is high on average.

    Args:
        features: (N, F), finite.
        targets: (N, 384) sentence embeddings of the prompts.
        source: what made the features.
        recipe: see there.
        progress: called with the number of steps done since.

    Returns:
        The head, ready for inference, and the mean loss (1 - cosine) of each epoch.

    Raises:
        EvaluationError: there are fewer than two pictures, or the lengths differ.
    """
    if len(features) != len(targets) or len(features) < 2:
        raise EvaluationError(
            f"{len(features)} pictures and {len(targets)} prompts: a head learns from 2 pairs or more"
        )
    torch.manual_seed(recipe.seed)
    raw, wanted = torch.from_numpy(np.asarray(features, dtype=np.float32)), torch.from_numpy(targets)
    head = _untrained(raw, source, recipe)
    x = head.standardise(raw)  # (N, F)
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=recipe.weight_decay)
    size = recipe.size(len(x))
    steps = recipe.epochs * math.ceil(len(x) / size)
    curve, step = [], 0
    head.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(len(x)), size):
            optimizer.param_groups[0]["lr"] = recipe.rate(step, steps)
            total += _step(head, optimizer, x[rows], wanted[rows]) * len(rows)
            step += 1
            progress(1)
        curve.append(total / len(x))
        logger.info("epoch %d of %d, loss %.4f", epoch + 1, recipe.epochs, curve[-1])
    return head.eval().requires_grad_(False), curve


def _untrained(raw: Tensor, source: Source, recipe: Recipe) -> EmbeddingHead:
    """A head that standardises by the statistics of (N, F) features."""
    config = HeadConfig(source.encoder, source.fingerprint, source.inputs, raw.shape[1], recipe.hidden)
    head = EmbeddingHead(config, input_dropout=recipe.input_dropout, dropout=recipe.dropout)
    head.mean.copy_(raw.mean(dim=0))
    head.scale.copy_(1 / (raw.std(dim=0) + 1e-4))
    return head


def _step(head: EmbeddingHead, optimizer: torch.optim.Optimizer, x: Tensor, wanted: Tensor) -> float:
    """One step of descent; returns the loss before it."""
    loss = 1 - F.cosine_similarity(head.predict(x), wanted).mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return float(loss.detach())


@dataclass(frozen=True, slots=True)
class Corpus:
    """Pictures whose prompts are known, to be found as neighbours: (M, D) embeddings and (M, 384) values."""

    embeddings: Embeddings
    values: Embeddings

    def nearest(self, queries: Embeddings, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest by exact search, equal ones by row: cosines and rows, both (Q, k)."""
        scores, rows = [], []
        for start in range(0, len(queries), _CHUNK):
            found = queries[start : start + _CHUNK] @ self.embeddings.T  # (q, M)
            order = np.argsort(-found, axis=1, kind="stable")[:, :k]
            scores.append(np.take_along_axis(found, order, axis=1))
            rows.append(order.astype(np.int64))
        return np.concatenate(scores), np.concatenate(rows)

    def regress(self, queries: Embeddings, k: int, temperature: float) -> Embeddings:
        """kNN regression for (Q, D) queries: (Q, 384)."""
        scores, rows = self.nearest(queries, min(k, len(self.values)))
        return self.means(scores, rows, temperature)

    def means(self, scores: NDArray[np.float32], rows: NDArray[np.int64], temperature: float) -> Embeddings:
        """The weighted means of neighbours that were found: both (Q, k) -> (Q, 384)."""
        chunks = (slice(start, start + _CHUNK) for start in range(0, len(scores), _CHUNK))
        return np.concatenate([weighted_mean(scores[at], self.values[rows[at]], temperature) for at in chunks])


class Pairs(NamedTuple):
    """N pictures that were looked at, and the (N, 384) sentence embeddings of their prompts."""

    looked: Looked
    targets: Embeddings


def fit(
    seen: Pairs,
    unseen: Pairs,
    source: Source,
    recipe: Recipe,
    out: Path,
    progress: Callable[[int], object] = lambda steps: None,
) -> dict[str, Any]:
    """Trains a head on the seen pictures, chooses its mixing on the unseen ones, and writes it.

    Returns:
        JSON: the recipe, the loss of each epoch, the mixing, the cosines on the unseen pictures, and the counts.

    Raises:
        EvaluationError: there is too little to learn from.
        OSError: the file cannot be written.
    """
    learn = partial(train_head, seen.looked.features, seen.targets, source, recipe)
    # On one core, whatever the number of threads: they would decide the last digits.
    head, curve = map_side_by_side(learn, [progress])[0]
    save_embedding_head(head, out, head.config.mixing)
    head = load_embedding_head(out)  # What is chosen is chosen for what is kept, rounded to float16.
    corpus = Corpus(seen.looked.embeddings, seen.targets)
    mixing, figures = choose_mixing(head, corpus, unseen.looked, unseen.targets)
    save_embedding_head(head, out, mixing)
    facts = {"recipe": recipe.to_dict(), "loss": curve, "mixing": asdict(mixing), "dev": figures}
    return {**facts, "pictures": {"train": len(seen.targets), "dev": len(unseen.targets)}}


def choose_mixing(
    head: EmbeddingHead, corpus: Corpus, unseen: Looked, targets: Embeddings
) -> tuple[Mixing, dict[str, float]]:
    """Chooses k and temperature for the neighbours alone, then their weight in the mix, by mean cosine.

    Args:
        head: trained without the unseen pictures.
        corpus: the pictures it was trained on.
        unseen: (N, D) embeddings and (N, F) features of the development pictures.
        targets: (N, 384), theirs.

    Returns:
        The choice, and the development cosines of "head", "neighbours" and "mix".

    Raises:
        EvaluationError: there are no unseen pictures.
    """
    if not len(targets):
        raise EvaluationError("no development pictures: give pairs of more prompts, a tenth of which are set aside")
    said = apply_head(head, unseen)
    limits = [k for k in NEIGHBOURS if k <= len(corpus.values)] or [len(corpus.values)]
    scores, rows = corpus.nearest(unseen.embeddings, limits[-1])
    tried = {(k, t): corpus.means(scores[:, :k], rows[:, :k], t) for k, t in _smallest_first(limits, TEMPERATURES)}
    figures = {choice: float(cosines(means, targets).mean()) for choice, means in tried.items()}
    k, temperature = max(figures, key=lambda choice: figures[choice])
    near = tried[k, temperature]
    mixed = {weight: float(cosines(mix(said, near, weight), targets).mean()) for weight in WEIGHTS}
    weight = max(mixed, key=lambda share: mixed[share])
    found = {"head": float(cosines(said, targets).mean()), "neighbours": figures[k, temperature], "mix": mixed[weight]}
    return Mixing(k, temperature, weight), found


def _smallest_first(limits: Sequence[int], temperatures: Sequence[float]) -> list[tuple[int, float]]:
    """All pairs; of equal ones `max` takes the first, which is the cheapest."""
    return [(k, t) for k in limits for t in temperatures]
