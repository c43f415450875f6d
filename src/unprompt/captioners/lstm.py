"""`lstm`: the picture's tokens, an LSTM cell and additive attention.

Xu et al., "Show, Attend and Tell" (2015), with soft attention: at every step the hidden state before it chooses where
to look, and the word is told from the hidden state, what was seen and the word before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.captioners.attention import AdditiveAttention, MemoryProjection
from unprompt.captioners.interface import CaptionConfig, CaptionModel, Memory, State


@dataclass(frozen=True, slots=True)
class LSTMConfig(CaptionConfig):
    """Widths of the parts.

    Attributes:
        memory_dim: of the projected tokens that are attended to.
        embedding_dim: of a word's embedding, which also is its row in the output.
        hidden_dim: of the LSTM's state.
        attention_dim: of the space in which query and keys are added.
    """

    memory_dim: int = 512
    embedding_dim: int = 512
    hidden_dim: int = 512
    attention_dim: int = 512


class Reading(NamedTuple):
    """One step: what was seen, where, and the LSTM's state after it."""

    context: Tensor  # (B, memory_dim)
    weights: Tensor  # (B, S)
    hidden: Tensor  # (B, hidden_dim)
    cell: Tensor  # (B, hidden_dim)


class LSTMCaptioner(CaptionModel):
    """See the module; `attention_weights` says where it looked."""

    name = "lstm"
    config_class = LSTMConfig
    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        # An LSTM with attention needs no positions: it is told what is there, and looks by content.
        self.memory = MemoryProjection(config, config.memory_dim, positions=False)
        self.attention = AdditiveAttention(config.hidden_dim, config.memory_dim, config.attention_dim)
        self.embedding = nn.Embedding(config.vocabulary, config.embedding_dim)
        self.cell = nn.LSTMCell(config.embedding_dim + config.memory_dim, config.hidden_dim)
        self.initial = nn.Linear(config.memory_dim, 2 * config.hidden_dim)
        self.deep = nn.Linear(config.hidden_dim + config.memory_dim + config.embedding_dim, config.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=config.embedding_dim**-0.5)

    def forward(self, memory: Memory, tokens: Tensor) -> Tensor:
        """See `CaptionModel.forward`."""
        embedded, readings = self._read(memory, tokens)
        context = torch.stack([reading.context for reading in readings], dim=1)  # (B, T, memory_dim)
        hidden = torch.stack([reading.hidden for reading in readings], dim=1)  # (B, T, hidden_dim)
        return self._logits(embedded, context, hidden)

    def attention_weights(self, memory: Memory, tokens: Tensor) -> Tensor:
        """Where it looked: (B, T, S), rows sum to 1; those at t belong to the token at t + 1, as the logits do.

        S is the number of grid tokens, and of neighbours where the captioner is told them.
        """
        return torch.stack([reading.weights for reading in self._read(memory, tokens)[1]], dim=1)

    def start(self, memory: Memory) -> State:
        """See `CaptionModel.start`."""
        values, mask = self.memory(memory)
        fixed = {"values": values, "keys": self.attention.key(values)}
        if mask is not None:
            fixed["mask"] = mask
        hidden, cell = self.initial(_mean(values, mask)).tanh().chunk(2, dim=-1)
        return State(fixed, {"hidden": hidden, "cell": cell}, torch.arange(len(values), device=values.device))

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`."""
        embedded = self.dropout(self.embedding(tokens))
        reading = self._step(state.fixed, state.moving, embedded)
        moving = {"hidden": reading.hidden, "cell": reading.cell}
        return self._logits(embedded, reading.context, reading.hidden), state._replace(moving=moving)

    def _read(self, memory: Memory, tokens: Tensor) -> tuple[Tensor, list[Reading]]:
        state = self.start(memory)
        embedded = self.dropout(self.embedding(tokens))  # (B, T, embedding_dim)
        moving, readings = state.moving, []
        for word in embedded.unbind(dim=1):
            readings.append(self._step(state.fixed, moving, word))
            moving = {"hidden": readings[-1].hidden, "cell": readings[-1].cell}
        return embedded, readings

    def _step(self, fixed: Mapping[str, Tensor], moving: Mapping[str, Tensor], embedded: Tensor) -> Reading:
        context, weights = self.attention(moving["hidden"], fixed["keys"], fixed["values"], fixed.get("mask"))
        hidden, cell = self.cell(torch.cat([embedded, context], dim=-1), (moving["hidden"], moving["cell"]))
        return Reading(context, weights, hidden, cell)

    def _logits(self, embedded: Tensor, context: Tensor, hidden: Tensor) -> Tensor:
        """Deep output, then the product with the words' embeddings: (..., V)."""
        deep = torch.tanh(self.deep(self.dropout(torch.cat([hidden, context, embedded], dim=-1))))
        return F.linear(self.dropout(deep), self.embedding.weight, self.bias)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of (B, S, d) over the tokens that are there: (B, d)."""
    if mask is None:
        return values.mean(dim=1)
    present = mask[..., None].to(values.dtype)
    return (values * present).sum(dim=1) / present.sum(dim=1)
