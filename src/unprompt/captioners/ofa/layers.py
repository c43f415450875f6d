"""OFA's attention, encoder layer and decoder layer, under the official checkpoints' parameter names.

The norms are those of Shleifer et al., "NormFormer" (2021): every head is scaled by a learnt factor, and what attention
and the feed-forward layer's hidden units give is normalised once more inside the branch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.captioners.ofa.config import OfaConfig
from unprompt.captioners.ofa.positions import split_heads

KeysValues = tuple[Tensor, Tensor]
"""Two tensors (N, nh, S, hs): what queries are compared with, and what is mixed."""


class Attention(nn.Module):
    """Multi-head attention whose scores get a bias, and whose heads are scaled."""

    def __init__(self, width: int, heads: int, scale_factor: float) -> None:
        super().__init__()
        self.heads = heads
        self.scaling = (width // heads * scale_factor) ** -0.5
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.c_attn = nn.Parameter(torch.ones(heads))

    def keys_values(self, x: Tensor) -> KeysValues:
        """Of what is attended to: (N, S, D) -> keys and values."""
        return split_heads(self.k_proj(x), self.heads), split_heads(self.v_proj(x), self.heads)

    def forward(self, x: Tensor, memory: KeysValues, bias: Tensor) -> Tensor:
        """Attends from x (N, T, D); the bias (N or 1, nh, T, S) is minus infinity where nothing may be seen."""
        keys, values = memory
        queries = split_heads(self.q_proj(x), self.heads)  # (N, nh, T, hs)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=self.scaling)
        mixed = mixed * self.c_attn[:, None, None]
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (N, T, D)
        return out


class Layer(nn.Module):
    """What both kinds of layer share: how a branch is normalised and added, and the feed-forward branch."""

    def __init__(self, config: OfaConfig, hidden: int, *, before: bool) -> None:
        super().__init__()
        self.before = before
        self.activation = F.relu if config.activation_function == "relu" else F.gelu
        self.fc1 = nn.Linear(config.d_model, hidden)
        self.fc2 = nn.Linear(hidden, config.d_model)
        self.ffn_layer_norm = nn.LayerNorm(hidden) if config.normformer else nn.Identity()
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.weight_ffn = gamma(config)

    def add(self, x: Tensor, branch: Callable[[Tensor], Tensor], norm: nn.Module, scale: Tensor | None) -> Tensor:
        """x plus its branch, normalised before the branch or after the sum."""
        y = branch(norm(x) if self.before else x)
        x = x + (y if scale is None else scale * y)
        out: Tensor = x if self.before else norm(x)
        return out

    def feed_forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D), the branch alone."""
        out: Tensor = self.fc2(self.ffn_layer_norm(self.activation(self.fc1(x))))
        return out


class EncoderLayer(Layer):
    """Self-attention, then feed-forward."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config, config.encoder_ffn_dim, before=config.encoder_normalize_before)
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, config.attn_scale_factor)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn_mid_layer_norm = inner_norm(config)
        self.weight_self_attn = gamma(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(N, S, D) -> (N, S, D); bias (N or 1, nh, S, S)."""

        def attend(h: Tensor) -> Tensor:
            out: Tensor = self.self_attn_mid_layer_norm(self.self_attn(h, self.self_attn.keys_values(h), bias))
            return out

        x = self.add(x, attend, self.self_attn_layer_norm, self.weight_self_attn)
        return self.add(x, self.feed_forward, self.final_layer_norm, self.weight_ffn)


class DecoderLayer(Layer):
    """Self-attention, attention to the encoder's states, then feed-forward."""

    def __init__(self, config: OfaConfig) -> None:
        super().__init__(config, config.decoder_ffn_dim, before=config.decoder_normalize_before)
        width, heads = config.d_model, config.decoder_attention_heads
        self.self_attn = Attention(width, heads, config.attn_scale_factor)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_mid_layer_norm = inner_norm(config)
        self.weight_self_attn = gamma(config)
        self.cross_attn = Attention(width, heads, config.attn_scale_factor)
        self.cross_attn_layer_norm = nn.LayerNorm(width)
        self.cross_attn_mid_layer_norm = inner_norm(config)
        self.weight_cross_attn = gamma(config)

    def forward(
        self, x: Tensor, past: KeysValues, memory: KeysValues, biases: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, KeysValues]:
        """Reads T tokens after P others.

        Args:
            x: (N, T, D).
            past: keys and values of the P tokens before, (N, nh, P, hs).
            memory: keys and values of the encoder's states, (N, nh, S, hs).
            biases: of self-attention (1, nh, T, P + T) and of attention to the encoder (N or 1, nh, T, S).

        Returns:
            The layer's states (N, T, D), and the keys and values of all P + T tokens.

        """
        seen = past

        def attend(h: Tensor) -> Tensor:
            nonlocal seen
            keys, values = self.self_attn.keys_values(h)
            seen = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
            out: Tensor = self.self_attn_mid_layer_norm(self.self_attn(h, seen, biases[0]))
            return out

        def look(h: Tensor) -> Tensor:
            out: Tensor = self.cross_attn_mid_layer_norm(self.cross_attn(h, memory, biases[1]))
            return out

        x = self.add(x, attend, self.self_attn_layer_norm, self.weight_self_attn)
        x = self.add(x, look, self.cross_attn_layer_norm, self.weight_cross_attn)
        x = self.add(x, self.feed_forward, self.final_layer_norm, self.weight_ffn)
        return x, seen


def inner_norm(config: OfaConfig) -> nn.Module:
    """The norm inside an attention branch, or nothing."""
    return nn.LayerNorm(config.d_model) if config.normformer else nn.Identity()


def gamma(config: OfaConfig) -> nn.Parameter | None:
    """The scale of a branch, channel by channel, or None."""
    return nn.Parameter(torch.ones(config.d_model)) if config.use_gamma_feature else None
