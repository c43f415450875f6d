"""`transformer`: an encoder over the picture's tokens and a causal decoder, 2 + 2 blocks, 4 heads, 512 wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.captioners.attention import CrossBlock, EncoderBlock, MemoryProjection
from unprompt.captioners.interface import CaptionConfig, CaptionerError, CaptionModel, Memory, State


@dataclass(frozen=True, slots=True)
class TransformerConfig(CaptionConfig):
    """The paper's sizes by default.

    Attributes:
        dim: width of every token.
        heads: of every attention; divides ``dim``.
        encoder_layers: blocks over the picture.
        decoder_layers: blocks over the caption.
        feedforward: width inside the feed-forward layers.
    """

    dim: int = 512
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    feedforward: int = 2048


class TransformerCaptioner(CaptionModel):
    """See the module. Words' embeddings also are the rows of the output."""

    name = "transformer"
    config_class = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        shape = (config.dim, config.heads, config.feedforward, config.dropout)
        self.memory = MemoryProjection(config, config.dim)
        self.encoder = nn.ModuleList(EncoderBlock(*shape) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(config.dim)
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        self.positions = nn.Embedding(config.max_tokens, config.dim)
        self.decoder = nn.ModuleList(CrossBlock(*shape) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.dim)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.dropout = nn.Dropout(config.dropout)
        for embedding in (self.embedding, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, memory: Memory, tokens: Tensor) -> Tensor:
        """See `CaptionModel.forward`.

        Raises:
            CaptionerError: the captions are longer than the configuration's ``max_tokens``.
        """
        encoded, mask = self._encode(memory)
        x = self._embed(tokens, 0)  # (B, T, d)
        for block in self._blocks():
            x, _ = block(x, block.cross.project(encoded), mask, causal=True)
        return self._logits(x)

    def attention_weights(self, memory: Memory, tokens: Tensor) -> Tensor:
        """Where the last block looked, averaged over its heads: (B, T, S), aligned as the logits are."""
        encoded, mask = self._encode(memory)
        x = self._embed(tokens, 0)
        *blocks, last = self._blocks()
        for block in blocks:
            x, _ = block(x, block.cross.project(encoded), mask, causal=True)
        y = last.norm1(x)
        x = x + last.dropout(last.attention(y, *last.attention.project(y), causal=True))
        return last.cross.weights(last.norm2(x), last.cross.project(encoded)[0], mask)

    def start(self, memory: Memory) -> State:
        """See `CaptionModel.start`."""
        encoded, mask = self._encode(memory)
        fixed = {} if mask is None else {"mask": mask}
        moving: dict[str, Tensor] = {}
        empty = encoded.new_empty(len(encoded), self.config.heads, 0, self.config.dim // self.config.heads)
        for i, block in enumerate(self._blocks()):
            fixed[f"keys.{i}"], fixed[f"values.{i}"] = block.cross.project(encoded)
            moving[f"keys.{i}"], moving[f"values.{i}"] = empty, empty
        return State(fixed, moving, torch.arange(len(encoded), device=encoded.device))

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`.

        Raises:
            CaptionerError: the captions get longer than the configuration's ``max_tokens``.
        """
        fixed, moving = state.fixed, dict[str, Tensor]()
        x = self._embed(tokens[:, None], state.moving["keys.0"].shape[2])  # (N, 1, d)
        for i, block in enumerate(self._blocks()):
            names = (f"keys.{i}", f"values.{i}")
            keys, values = (fixed[name] for name in names)
            past_keys, past_values = (state.moving[name] for name in names)
            x, past = block(x, (keys, values), fixed.get("mask"), (past_keys, past_values))
            moving |= dict(zip(names, past, strict=True))
        return self._logits(x[:, 0]), state._replace(moving=moving)

    def _blocks(self) -> list[CrossBlock]:
        return cast("list[CrossBlock]", list(self.decoder))

    def _encode(self, memory: Memory) -> tuple[Tensor, Tensor | None]:
        x, mask = self.memory(memory)
        x = self.dropout(x)
        for block in self.encoder:
            x = block(x, mask)
        return self.encoder_norm(x), mask

    def _embed(self, tokens: Tensor, position: int) -> Tensor:
        end = position + tokens.shape[1]
        if end > self.config.max_tokens:
            raise CaptionerError(
                f"a caption of {end} tokens is longer than this transformer's {self.config.max_tokens}: "
                "cut it, or set max_tokens before training"
            )
        embedded: Tensor = self.dropout(self.embedding(tokens) + self.positions.weight[position:end])
        return embedded

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self.decoder_norm(x), self.embedding.weight, self.bias)
