"""Trains and keeps the network that predicts embeddings of prompts with terms appended (`ExtensionNet`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from unprompt.encoders.parallel import map_side_by_side
from unprompt.index.files import write_durably
from unprompt.search.extension_net import HIDDEN, ExtensionNet, extended
from unprompt.search.weighted_mean import relative_lengths
from unprompt.types import Embeddings

FORMAT = "unprompt-extension-net/1"
FLOAT32 = ("means", "scales", "probe")
"""Statistics keep their precision on disk; all else is float16."""

WARM_UP = 0.1
"""The share of all steps in which the learning rate rises."""


@dataclass(frozen=True, slots=True)
class TermTable:
    """What is known of T terms beforehand.

    Attributes:
        embeddings: (T, D) of the terms alone.
        contexts: (T, D) of the terms at the end of `unprompt.index.contexts.CONTEXT`.
        lengths: (T,) float32, in characters.
        probe: (D,) of `CONTEXT` itself: by this a search knows the encoder again.
    """

    embeddings: Embeddings
    contexts: NDArray[np.floating[Any]]
    lengths: NDArray[np.float32]
    probe: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Examples:
    """N terms, each appended to one of P prompts, and the embeddings that were seen.

    Attributes:
        prompts: (P, D) float32 of norm 1, the prompts' own embeddings.
        lengths: (P,) float32, the prompts' in characters.
        queries: (P, D) float32, of the pictures that the prompts were found for.
        owners: (N,) the prompt that each term is appended to.
        terms: (N,) rows of a `TermTable`.
        embeddings: (N, D) float16 of norm 1, of the prompts with the terms appended.
    """

    prompts: Embeddings
    lengths: NDArray[np.float32]
    queries: Embeddings
    owners: NDArray[np.intp]
    terms: NDArray[np.intp]
    embeddings: NDArray[np.float16]

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """All of several parts (at least one), in their order."""
        firsts = np.cumsum([0, *(len(part.prompts) for part in parts)])
        return cls(
            np.concatenate([part.prompts for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.queries for part in parts]),
            np.concatenate([part.owners + first for part, first in zip(parts, firsts, strict=False)]),
            np.concatenate([part.terms for part in parts]),
            np.concatenate([part.embeddings for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How the network is trained.

    Attributes:
        hidden: see `ExtensionNet`.
        epochs: passes over all examples.
        batch: examples of a step; of a smaller set, all of them.
        rate: the greatest learning rate; it rises in the first `WARM_UP` of the steps, and falls to nothing after
            them (Smith and Topin, 2017).
        decay: of the weights (AdamW).
        towards: how much the squared error along the picture's direction counts beside that of the whole embedding:
            only this one changes a cosine with the picture.
        seed: of the first weights, and of the order of the examples.
    """

    hidden: int = HIDDEN
    epochs: int = 10
    batch: int = 1024
    rate: float = 1.5e-3
    decay: float = 0.1
    towards: float = 20.0
    seed: int = 0


def train(
    table: TermTable,
    examples: Examples,
    options: TrainOptions | None = None,
    report: Callable[[int, float, ExtensionNet], None] | None = None,
) -> ExtensionNet:
    """Trains a network to predict N embeddings; ready for inference, in float32.

    It is trained on one core, layers in bfloat16: no bit depends on the number of threads.

    Args:
        table: all terms; the network centres and scales by these.
        examples: one or more.
        options: see `TrainOptions`.
        report: is told the epoch, from 1 on, its mean loss, and the network as it is then.

    Raises:
        ValueError: there are no examples.
    """
    if not len(examples.terms):
        raise ValueError("a network of no examples: give at least one")
    chosen = options or TrainOptions()
    [net] = map_side_by_side(lambda given: _train(table, given, chosen, report), [examples])
    return net


def predict(net: ExtensionNet, table: TermTable, examples: Examples) -> Embeddings:
    """(N, D) float32 of norm 1, what the network takes the examples' embeddings for; theirs are not read."""
    parts = [np.arange(first, min(first + 8192, len(examples.terms))) for first in range(0, len(examples.terms), 8192)]

    @torch.inference_mode()
    def embed(rows: NDArray[np.intp]) -> Embeddings:
        found: Embeddings = net(*_inputs(table, examples, rows)).numpy()
        return found

    return np.concatenate([np.zeros((0, examples.prompts.shape[1]), np.float32), *map_side_by_side(embed, parts)])


def untrained(table: TermTable, options: TrainOptions) -> ExtensionNet:
    """The network as training begins: it predicts the means weighted by length, whatever the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = ExtensionNet(table.embeddings.shape[1], options.hidden)
    for row, block in enumerate((table.embeddings, table.contexts)):
        mean = block.mean(axis=0, dtype=np.float64)
        squares = [np.square(part - mean).sum() for part in np.array_split(block, -(-len(block) // 4096))]
        net.means[row] = torch.from_numpy(mean)
        net.scales[row] = max(float(np.sqrt(sum(squares) / len(block))), 1e-6)
    net.probe[:] = torch.from_numpy(table.probe)
    return net


def _train(
    table: TermTable,
    examples: Examples,
    options: TrainOptions,
    report: Callable[[int, float, ExtensionNet], None] | None,
) -> ExtensionNet:
    net, total = untrained(table, options), len(examples.terms)
    size = min(options.batch, total)
    optimizer = torch.optim.AdamW(net.parameters(), options.rate, weight_decay=options.decay)
    steps = options.epochs * (total // size) + 1  # the last rate is never used
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, steps, pct_start=WARM_UP)
    rng = np.random.default_rng(options.seed)
    for epoch in range(options.epochs):
        order, losses = rng.permutation(total), []
        for first in range(0, total - size + 1, size):
            loss = _loss(net, table, examples, order[first : first + size], options.towards)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if report:
            report(epoch + 1, float(np.mean(losses)), net)
    return net.eval().requires_grad_(False)


def _loss(net: ExtensionNet, table: TermTable, examples: Examples, rows: NDArray[np.intp], towards: float) -> Tensor:
    """The mean squared error of the embeddings, and of their cosines with the pictures."""
    inputs = embeddings, _, lengths, prompts, prompt_lengths = _inputs(table, examples, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shift = net.correction(*inputs)
    predicted = extended(embeddings, prompts, relative_lengths(lengths, prompt_lengths), shift.float())
    errors = predicted - torch.from_numpy(examples.embeddings[rows]).float()
    along = (errors * torch.from_numpy(examples.queries[examples.owners[rows]])).sum(dim=1)
    return errors.square().sum(dim=1).mean() + towards * along.square().mean()


def _inputs(table: TermTable, examples: Examples, rows: NDArray[np.intp]) -> tuple[Tensor, ...]:
    """What `ExtensionNet.forward` takes for n of the examples."""
    terms, owners = examples.terms[rows], examples.owners[rows]
    arrays = (
        table.embeddings[terms],
        table.contexts[terms],
        table.lengths[terms],
        examples.prompts[owners],
        examples.lengths[owners],
    )
    return tuple(torch.from_numpy(array).float() for array in arrays)


def save_net(net: ExtensionNet, path: Path, seed: int) -> None:
    """Writes a network as float16 safetensors, `FLOAT32` apart; `unprompt.search.extension_net.load_net` reads it.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
    """
    tensors = {name: tensor if name in FLOAT32 else tensor.half() for name, tensor in net.state_dict().items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"format": FORMAT, "dim": net.out.out_features, "hidden": net.out.in_features, "seed": seed}
    data = save(contiguous, {"config": json.dumps(facts, sort_keys=True)})
    write_durably(path, lambda file: file.write(data))
