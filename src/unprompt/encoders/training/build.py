"""Puts the memory head together: features in, trained head out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unprompt.encoders.memory_head import MemoryConfig, MemoryHead
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.training import discriminant, gate, naming, open_domain, values
from unprompt.encoders.training.data import Example
from unprompt.encoders.training.evaluate import GRID, Texts
from unprompt.encoders.training.factors import Factors, factorise
from unprompt.encoders.training.features import Features
from unprompt.encoders.training.objective import PromptLoss, bank, make_targets

logger = logging.getLogger(__name__)

STAGES = range(1, 8)
INPUTS = (
    "pooled",
    *(f"stage{stage}.{moment}" for stage in STAGES for moment in ("mean", "std")),
    *(f"stage{stage}.cov" for stage in (2, 3, 4)),
)
SIDE = 224
"""Pixels. Grid crops have 150, the other sets 256 or more, and the speed on two cores asks for few."""
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights besides the data."""

    seed: int = 0
    splits: tuple[str, ...] = ("train", "dev")
    discriminant: discriminant.Discriminant = field(default_factory=discriminant.Discriminant)
    schedule: values.Schedule = field(default_factory=values.Schedule)
    norms: Mapping[str, gate.Norm] = field(default_factory=lambda: dict(gate.NORMS))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TextSide:
    """What training takes from texts alone.

    Attributes:
        encode: embeds texts.
        class_names: the 1,000 names of ImageNet.
        prompts: prompts such as image generators are given, without pictures.

    """

    encode: Texts
    class_names: Sequence[str]
    prompts: Sequence[str]

    def tensor(self, texts: Sequence[str]) -> Tensor:
        """(N, dim) embeddings."""
        return torch.from_numpy(self.encode(texts))


def train_head(
    examples: Sequence[Example],
    features: Features,
    class_rows: Tensor,
    texts: TextSide,
    recipe: Recipe,
    preprocessing: Preprocessing,
    watch: Callable[[MemoryHead], None] = lambda _: None,
) -> tuple[MemoryHead, list[float]]:
    """Fits the discriminants, remembers the pictures, trains the values, and sets what is said of unknown pictures.

    Args:
        examples: N examples.
        features: of `INPUTS`, rows as in `examples`.
        class_rows: (1000, 1280) weights of the backbone's classifier.
        texts: the text side.
        recipe: see there.
        preprocessing: what the features were computed from; it goes with the weights.
        watch: called with the head before the values are trained, and after each epoch.

    Returns:
        The head, and the loss of each step.

    """
    torch.manual_seed(recipe.seed)
    rows = torch.tensor([i for i, e in enumerate(examples) if e.split in recipe.splits])
    factors = factorise(examples, rows)
    names, prompts = texts.tensor(texts.class_names), texts.tensor(texts.prompts)
    head = empty_head(features, factors, recipe.discriminant.width, names.shape[1], preprocessing)
    grid = torch.tensor([examples[i].set == GRID for i in rows.tolist()])
    x = fit_inputs(head, features, rows)  # (n, D)
    counts = torch.where(grid, 1.0, recipe.discriminant.small_set_weight)
    means = discriminant.fit_groups(head, x, factors.group[rows], counts, recipe.discriminant)
    discriminant.fit_entities(head, x, factors.entity[rows], counts, means, recipe.discriminant)
    scores, has_others = discriminant.remember(head, x, factors, rows)
    logger.info("%d entities remembered from %d pictures", head.config.entities, len(rows))
    with torch.no_grad():
        evidence = (rows, scores, head.groups(x))
    weights = torch.where(grid, 1.0, recipe.schedule.small_set_weight) * has_others
    pooled = torch.from_numpy(features["pooled"][rows.numpy()].mean(axis=0, dtype=np.float32))
    open_domain.set_class_values(head, names, prompts, class_rows, pooled)
    gate.set_texture(head, x, factors.group[rows], counts)
    gate.set_gate(head, factors.group_sets, recipe.norms)
    del x
    curve = _train_values(head, examples, factors, texts, evidence, weights, recipe, watch)
    return head.eval().requires_grad_(False), curve


def empty_head(features: Features, factors: Factors, width: int, dim: int, preprocessing: Preprocessing) -> MemoryHead:
    """A head of the right shape, all zeros. See `train_head` and `MemoryConfig` for the arguments."""
    texture = sum(features[name].shape[1] for name in INPUTS if name.endswith((".mean", ".std")))
    config = MemoryConfig(
        inputs=INPUTS,
        input_dim=sum(features[name].shape[1] for name in INPUTS),
        groups=len(factors.group_family),
        families=factors.group_family.shape[1],
        entities=len(factors.entity_family),
        width=width,
        dim=dim,
        pooled=features["pooled"].shape[1],
        texture=texture,
        usual=min(gate.USUAL, texture * 3 // 4),
        preprocessing=preprocessing.to_dict(),
    )
    return MemoryHead(config)


@torch.no_grad()
def fit_inputs(head: MemoryHead, features: Features, rows: Tensor) -> Tensor:
    """Sets the statistics of the inputs to those of the rows, and returns the rows standardised: (n, D)."""
    head.input_scale.fill_(1.0)
    x = standardised(head, features, rows)
    head.input_mean.copy_(x.mean(dim=0))
    head.input_scale.copy_(1 / (x.std(dim=0) + 1e-4))
    return x.sub_(head.input_mean).mul_(head.input_scale)


@torch.no_grad()
def standardised(head: MemoryHead, features: Features, rows: Tensor) -> Tensor:
    """The head's inputs for some rows, (n, D), in chunks so that float16 features need not fit twice."""
    return torch.cat([head.standardise(batch_of(features, part.numpy(), INPUTS)) for part in chunks(rows)])


@torch.no_grad()
def embed(head: MemoryHead, features: Features, rows: Sequence[int]) -> Tensor:
    """The head's output for some rows: (n, dim)."""
    names = dict.fromkeys((*head.config.inputs, "pooled", "logits"))
    return torch.cat([head(batch_of(features, part.numpy(), tuple(names))) for part in chunks(torch.tensor(rows))])


def chunks(rows: Tensor) -> list[Tensor]:
    """(n,) in parts of at most `CHUNK`."""
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def batch_of(features: Features, rows: np.ndarray[Any, Any], names: Sequence[str]) -> dict[str, Tensor]:
    """Some rows of some features, as float32 tensors."""
    return {name: torch.from_numpy(features[name][rows].astype(np.float32)) for name in names}


def _train_values(
    head: MemoryHead,
    examples: Sequence[Example],
    factors: Factors,
    texts: TextSide,
    evidence: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    recipe: Recipe,
    watch: Callable[[MemoryHead], None],
) -> list[float]:
    """Embeds the training texts, and trains what is said."""
    prompts, fragments = bank(examples, recipe.splits)
    embeddings = texts.tensor(prompts), texts.tensor(fragments)
    targets = make_targets(examples, prompts, fragments, embeddings)
    firsts = {examples[i].prompt: i for i in reversed(evidence[0].tolist())}
    values.initialise_values(head, factors, torch.tensor([firsts[p] for p in prompts]), embeddings[0])
    names = texts.tensor(naming.entity_names(examples, evidence[0], factors.entity))
    naming.set_names(head, names, head.group_values)
    shown = naming.group_names(examples, evidence[0], factors.group, factors.group_sets)
    naming.set_group_names(head, shown, texts.tensor(shown), factors.group_sets)
    generator = torch.Generator().manual_seed(recipe.seed)
    return values.train_values(head, PromptLoss(targets), evidence, weights, recipe.schedule, generator, watch)
