"""What the captioners share: the memory they attend to, and attention with a cache.

Multi-head attention and its blocks are Vaswani et al., "Attention Is All You Need" (2017), with the norms before
each sublayer (Xiong et al., 2020), which trains without warm-up; additive attention is Bahdanau et al. (2015).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.captioners.interface import CaptionConfig, CaptionerError, Memory

GRID, NEIGHBOUR = 0, 1
"""Rows of the type embedding."""


class Attended(NamedTuple):
    """A memory as a model attends to it."""

    tokens: Tensor
    """(B, S, d): the picture's tokens, then its neighbours'."""
    mask: Tensor | None
    """(B, S) bool, True where attention may look; None for everywhere."""


class MemoryProjection(nn.Module):
    """Brings the tokens of the picture, and of its neighbours if the captioner is told them, to the model's width.

    Neighbours are tokens like the picture's own, told apart by a type embedding, so that every captioner that attends
    to a set can be told them without another change.
    """

    def __init__(self, config: CaptionConfig, dim: int, *, positions: bool = True) -> None:
        super().__init__()
        self.grid_shape = (config.grid_tokens, config.grid_dim)
        self.neighbour_dim = config.neighbour_dim
        self.grid = nn.Linear(config.grid_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.positions = nn.Parameter(torch.randn(config.grid_tokens, dim) * 0.02) if positions else None
        if config.neighbour_dim:
            self.neighbour = nn.Linear(config.neighbour_dim, dim)
            self.neighbour_norm = nn.LayerNorm(dim)
            self.types = nn.Parameter(torch.randn(2, dim) * 0.02)

    def forward(self, memory: Memory) -> Attended:
        """Projects B pictures.

        Raises:
            CaptionerError: the memory does not have the shape that the configuration names.
        """
        self._check(memory)
        grid = self.norm(self.grid(memory.grid.to(self.grid.weight.dtype)))  # (B, M, d)
        if self.positions is not None:
            grid = grid + self.positions
        if not self.neighbour_dim:
            return Attended(grid, None)
        grid = grid + self.types[GRID]
        if memory.neighbours is None:
            return Attended(grid, None)
        told = self.neighbour(memory.neighbours.to(self.neighbour.weight.dtype))
        told = self.neighbour_norm(told) + self.types[NEIGHBOUR]  # (B, K, d)
        mask = memory.neighbour_mask
        if mask is not None:
            mask = torch.cat([mask.new_ones(grid.shape[:2]), mask], dim=1)
        return Attended(torch.cat([grid, told], dim=1), mask)

    def _check(self, memory: Memory) -> None:
        found = tuple(memory.grid.shape[1:])
        if found != self.grid_shape:
            raise CaptionerError(
                f"the grid is {found}, this captioner reads {self.grid_shape}: use the backbone it was trained on"
            )
        told = memory.neighbours
        if self.neighbour_dim and told is not None and told.shape[2] != self.neighbour_dim:
            raise CaptionerError(
                f"neighbour embeddings are {told.shape[2]} wide, this captioner reads {self.neighbour_dim}: "
                "embed their prompts as in training"
            )


class AdditiveAttention(nn.Module):
    """score(query, key) = v . tanh(W query + U key), softmax over the keys."""

    def __init__(self, query_dim: int, memory_dim: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_dim, dim)
        self.key = nn.Linear(memory_dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reads the memory once.

        Args:
            query: (B, query_dim).
            keys: (B, S, dim), from `key`, which is computed once a picture.
            values: (B, S, memory_dim).
            mask: (B, S) bool or None.

        Returns:
            The context (B, memory_dim) and the weights (B, S), which sum to 1.
        """
        scores = self.score(torch.tanh(self.query(query)[:, None] + keys)).squeeze(-1)  # (B, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        return torch.einsum("bs,bsd->bd", weights, values), weights


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in heads; keys and values are projected apart, so that they can be cached."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise CaptionerError(f"width {dim} does not divide into {heads} heads: choose a multiple")
        self.heads, self.dropout = heads, dropout
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (B, S, d), each (B, nh, S, hs)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """(B, T, d) attends to S projected tokens; ``mask`` is (B, S) bool; ``causal`` is for T = S."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(x)),  # (B, nh, T, hs)
            keys,
            values,
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention of (B, T, d) over the S keys, averaged over the heads: (B, T, S), rows sum to 1."""
        query = self._split(self.query(x))
        scores = query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5  # (B, nh, T, S)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        weights: Tensor = scores.softmax(dim=-1).mean(dim=1)
        return weights

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Sequential):
    """d -> hidden -> d with GELU."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))


class EncoderBlock(nn.Module):
    """Self-attention over the memory, then feed-forward."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), MultiHeadAttention(dim, heads, dropout)
        self.norm2, self.feedforward = nn.LayerNorm(dim), FeedForward(dim, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, d) -> (B, S, d)."""
        y = self.norm1(x)
        x = x + self.dropout(self.attention(y, *self.attention.project(y), mask))
        out: Tensor = x + self.dropout(self.feedforward(self.norm2(x)))
        return out


class CrossBlock(nn.Module):
    """Self-attention, attention to the memory, feed-forward: a decoder's block, and a bridge's."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), MultiHeadAttention(dim, heads, dropout)
        self.norm2, self.cross = nn.LayerNorm(dim), MultiHeadAttention(dim, heads, dropout)
        self.norm3, self.feedforward = nn.LayerNorm(dim), FeedForward(dim, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None = None,
        *,
        causal: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, d) -> (B, T, d), and the keys and values of all its tokens so far.

        Args:
            x: the new tokens.
            memory: keys and values from ``cross.project``.
            mask: (B, S) bool or None, of the memory.
            past: keys and values of the tokens before these; with it, T is 1.
            causal: each token sees only those before it.
        """
        y = self.norm1(x)
        keys, values = self.attention.project(y)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        x = x + self.dropout(self.attention(y, keys, values, causal=causal and past is None))
        x = x + self.dropout(self.cross(self.norm2(x), *memory, mask))
        return x + self.dropout(self.feedforward(self.norm3(x))), (keys, values)
