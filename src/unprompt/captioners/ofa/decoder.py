"""OFA's decoder: reads the answer so far, token by token or whole, and scores the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unprompt.captioners.ofa.config import OfaConfig
from unprompt.captioners.ofa.encoder import Encoding
from unprompt.captioners.ofa.layers import DecoderLayer
from unprompt.captioners.ofa.positions import (
    drawn_positions,
    grid_buckets,
    grid_distances,
    relative_bias,
    split_heads,
    tables,
    token_buckets,
    token_distances,
)


class Decoder(nn.Module):
    """Causal attention over the answer, and attention to the `Encoding`.

    It also holds the parameters with which OFA draws pictures as ``<code_i>`` tokens: they belong to the official
    checkpoints, and are not used in answering.

    Args:
        config: the architecture.
        embed_tokens: the token embeddings, shared with the encoder.

    """

    def __init__(self, config: OfaConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        width, heads = config.d_model, config.decoder_attention_heads
        self.heads = heads
        self.embed_scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.position_scale = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else nn.Identity()
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(width) if config.decoder_normalize_before else nn.Identity()
        self.output_projection = nn.Linear(width, config.vocab_size, bias=False)
        if config.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        count = 1 if config.share_attn_bias else config.decoder_layers
        self.token_rel_pos_table_list = tables(count, token_distances(config.token_bucket_size), heads)
        self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size))
        self._add_drawing(config, count)

    def _add_drawing(self, config: OfaConfig, count: int) -> None:
        width, bucket_size = config.d_model, config.image_bucket_size
        self.embed_image_positions = nn.Embedding(bucket_size**2 + 1, width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.code_layernorm_embedding = nn.LayerNorm(width) if config.code_layernorm_embedding else None
        self.image_rel_pos_table_list = tables(count, grid_distances(bucket_size), self.heads)
        self.register_buffer("image_rp_bucket", grid_buckets(bucket_size))
        self.register_buffer("image_position_idx", drawn_positions(config.code_image_size, bucket_size))

    def read(self, encoding: Encoding) -> dict[str, Tensor]:
        """What every step needs of N encodings, by name.

        ``cross_key.i`` and ``cross_value.i`` of layer i and ``place_key`` are (N, nh, S, hs), ``padding`` is (N, S).
        """
        fixed = {"padding": encoding.padding}
        places = split_heads(self.cross_pos_k_linear(encoding.positions), self.heads)  # (nh, S, hs)
        fixed["place_key"] = places.expand(len(encoding.states), -1, -1, -1)
        for i, layer in enumerate(self.layers):
            keys, values = layer.cross_attn.keys_values(encoding.states)  # type: ignore[operator, union-attr]
            fixed |= {f"cross_key.{i}": keys, f"cross_value.{i}": values}
        return fixed

    def empty(self, rows: int) -> dict[str, Tensor]:
        """The cache before the first token: ``key.i`` and ``value.i`` of layer i, (rows, nh, 0, hs)."""
        nothing = self.embed_positions.weight.new_empty((rows, self.heads, 0, self.config.d_model // self.heads))
        return {f"{kind}.{i}": nothing for i in range(len(self.layers)) for kind in ("key", "value")}

    def forward(
        self, tokens: Tensor, fixed: Mapping[str, Tensor], cache: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads T tokens after the P in the cache.

        Args:
            tokens: (N, T) int64.
            fixed: from `read`.
            cache: from `empty`, or from the call before.

        Returns:
            The logits of each next token (N, T, V), and the cache with all P + T tokens.

        """
        past = cache["key.0"].shape[2]
        total = past + tokens.shape[1]
        places = self.embed_positions.weight[:total]  # (P + T, D)
        x = self.embed_scale * self.embed_tokens(tokens)
        if self.config.entangle_position_embedding and not self.config.disable_entangle:
            x = x + places[past:]
        x = self.layernorm_embedding(x)
        places = self.pos_ln(places)
        absolute = self.self_bias(places, past)
        across = self.cross_bias(places[past:], fixed)
        grown: dict[str, Tensor] = {}
        for i, layer in enumerate(self.layers):
            memory = fixed[f"cross_key.{i}"], fixed[f"cross_value.{i}"]
            before = cache[f"key.{i}"], cache[f"value.{i}"]
            biases = (absolute + self.relative(i, past, total))[None], across
            x, (grown[f"key.{i}"], grown[f"value.{i}"]) = layer(x, before, memory, biases)
        return self.output_projection(self.layer_norm(x)), grown

    def self_bias(self, places: Tensor, past: int) -> Tensor:
        """The bias of absolute positions, (nh, T, P + T); minus infinity for tokens that are yet to come."""
        queries = split_heads(self.self_pos_q_linear(places[past:]), self.heads) * self.position_scale
        bias = torch.matmul(queries, split_heads(self.self_pos_k_linear(places), self.heads).transpose(1, 2))
        later = torch.ones(bias.shape[1:], dtype=torch.bool, device=bias.device).triu(past + 1)
        return bias.masked_fill(later, -math.inf)

    def cross_bias(self, places: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        """The bias of the answer's places (T, D) towards the encoder's, (N, nh, T, S)."""
        queries = split_heads(self.cross_pos_q_linear(places), self.heads) * self.position_scale
        bias = torch.matmul(queries, fixed["place_key"].transpose(2, 3))
        return bias.masked_fill(fixed["padding"][:, None, None, :], -math.inf)

    def relative(self, layer: int, past: int, total: int) -> Tensor:
        """The bias of relative positions of a layer, (nh, T, P + T)."""
        table = self.token_rel_pos_table_list[0 if self.config.share_attn_bias else layer]
        return relative_bias(table, self.get_buffer("token_rp_bucket")[past:total, :total])
