"""What every trainable captioner is: pictures and neighbours in as a `Memory`, next-token logits out.

A captioner runs in two ways that must agree: `forward` reads whole captions at once (teacher forcing), and `start`,
`step`, `reorder` write them token by token with caches. `unprompt.captioners.decode` needs only the latter, so models
that are not trained here (BLIP, OFA) take part by those alone, as `Decodable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.errors import CaptionerError as CaptionerError


class Memory(NamedTuple):
    """What a caption is written from, for B pictures."""

    grid: Tensor
    """(B, M, C) float: the backbone's tokens, row by row of the picture; M = 49 and C = 1280 for EfficientNet-Lite2."""
    neighbours: Tensor | None = None
    """(B, K, E) float: sentence embeddings of the K nearest prompts, nearest first; E = 384 for all-MiniLM-L6-v2."""
    neighbour_mask: Tensor | None = None
    """(B, K) bool, True where there is a neighbour; None where all are there."""

    def select(self, rows: Tensor | slice) -> Memory:
        """The memory of some of the pictures."""
        return self._map(lambda part: part[rows])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Memory:
        """The memory on another device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Memory:
        neighbours, mask = (None if part is None else function(part) for part in self[1:])
        return Memory(function(self.grid), neighbours, mask)


class State(NamedTuple):
    """Where N captions being written stand. Every tensor has N rows."""

    fixed: Mapping[str, Tensor]
    """What depends on the picture alone, such as keys and values of the memory."""
    moving: Mapping[str, Tensor]
    """What changes with every token, such as the cache of the tokens so far."""
    pictures: Tensor
    """(N,) int64: the picture of each row."""


class Decodable(Protocol):
    """What decoding needs. Models in one batch are at the same position: rows only differ in their tokens."""

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """Reads one token (N,) int64 a row; returns the logits of the next, (N, V) float, and the state after it."""
        ...

    def reorder(self, state: State, rows: Tensor) -> State:
        """The state whose row i is row ``rows[i]`` of the old one; rows may repeat and may be left out."""
        ...


@dataclass(frozen=True, slots=True)
class CaptionConfig:
    """What all captioners are built from; each adds its own. All values are JSON.

    Attributes:
        vocabulary: V, the number of tokens.
        grid_dim: C, the width of the backbone's tokens.
        grid_tokens: M, how many of them a picture has.
        max_tokens: the longest caption, with its first and last special tokens.
        neighbour_dim: E, the width of neighbour embeddings; 0 for a captioner that is told no neighbours.
        dropout: between 0 and 1.
    """

    vocabulary: int
    grid_dim: int = 1280
    grid_tokens: int = 49
    max_tokens: int = 32
    neighbour_dim: int = 0
    dropout: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        """All values as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


class CaptionModel(nn.Module):
    """A trainable captioner, built as ``Model(config)`` with random weights (seed torch first)."""

    name: ClassVar[str]
    config_class: ClassVar[type[CaptionConfig]]

    def __init__(self, config: CaptionConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, memory: Memory, tokens: Tensor) -> Tensor:
        """Teacher forcing: tokens (B, T) int64 -> logits (B, T, V); those at t predict the token at t + 1."""
        raise NotImplementedError

    def start(self, memory: Memory) -> State:
        """The state of B empty captions, one a picture; the first token to `step` with is the beginning-of-text."""
        raise NotImplementedError

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`."""
        raise NotImplementedError

    def reorder(self, state: State, rows: Tensor) -> State:
        """See `Decodable.reorder`."""
        return reorder(state, rows)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not frozen, in the order of their names' definition."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def frozen_names(self) -> list[str]:
        """The names of the parameters that training never changes, sorted."""
        return sorted(name for name, parameter in self.named_parameters() if not parameter.requires_grad)

    def weights(self) -> dict[str, Tensor]:
        """All parameters and persistent buffers by name; tensors that are tied to each other appear once."""
        first: dict[tuple[int, torch.Size], str] = {}
        kept = {}
        for name, tensor in self.state_dict().items():
            if first.setdefault((tensor.data_ptr(), tensor.shape), name) == name:
                kept[name] = tensor
        return kept

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """The inverse of `weights`, strict.

        Raises:
            CaptionerError: names or shapes do not fit.
        """
        expected = self.weights()
        wrong = sorted(expected.keys() ^ weights.keys())
        wrong += [name for name in expected if name in weights and expected[name].shape != weights[name].shape]
        if wrong:
            raise CaptionerError(
                f"the weights are not of this {self.name} ({len(wrong)} differ, {wrong[0]} first): "
                "load them with the configuration they were saved with"
            )
        self.load_state_dict(dict(weights), strict=False)  # what is missing is tied to what was given

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The trainable parameters for an optimizer: matrices decay; biases, norms and other vectors do not."""
        parameters = self.trainable_parameters()
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]


def reorder(state: State, rows: Tensor) -> State:
    """The state of other rows; what is fixed is only copied where a row gets another picture."""
    pictures = state.pictures[rows]
    fixed = state.fixed
    if not torch.equal(pictures, state.pictures):
        fixed = {name: part[rows] for name, part in fixed.items()}
    return State(fixed, {name: part[rows] for name, part in state.moving.items()}, pictures)


def shifted_loss(
    logits: Tensor,
    tokens: Tensor,
    pad: int,
    *,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of captions: the only place where predictions and tokens are shifted by one.

    Args:
        logits: (B, T, V), or (B, T - 1, V) of a forward pass that was not given the last token.
        tokens: (B, T) int64, from beginning-of-text to end-of-text and then ``pad``.
        pad: a token that is never predicted, so never the end-of-text itself.
        reduction: over the predicted tokens of all captions; "sum" serves gradient accumulation (see `predicted`).
        label_smoothing: share of the target that is spread over the vocabulary.

    """
    targets = tokens[:, 1:]  # (B, T - 1)
    return F.cross_entropy(
        logits[:, : targets.shape[1]].flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=pad,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def predicted(tokens: Tensor, pad: int) -> int:
    """How many tokens of (B, T) captions the loss counts."""
    return int((tokens[:, 1:] != pad).sum())
