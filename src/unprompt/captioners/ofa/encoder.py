"""OFA's encoder: a picture and a question in, one sequence of states out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unprompt.captioners.ofa.config import RESNET_BLOCKS, OfaConfig
from unprompt.captioners.ofa.layers import EncoderLayer
from unprompt.captioners.ofa.positions import (
    grid_buckets,
    grid_distances,
    grid_positions,
    relative_bias,
    split_heads,
    stretched,
    tables,
    token_buckets,
    token_distances,
)
from unprompt.captioners.ofa.resnet import STRIDE, WIDTH, ResNet


class Encoding(NamedTuple):
    """What the decoder answers from: S = cells of the picture, then tokens of the question."""

    states: Tensor
    """(N, S, D) float."""
    positions: Tensor
    """(S, D) float: the normalised embedding of each place, the same for all pictures."""
    padding: Tensor
    """(N, S) bool, True where a question is padded."""


class Encoder(nn.Module):
    """The picture's cells come first, row by row, then the question's tokens.

    Args:
        config: the architecture.
        embed_tokens: the token embeddings, shared with the decoder.

    """

    def __init__(self, config: OfaConfig, embed_tokens: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        width, heads = config.d_model, config.encoder_attention_heads
        self.heads = heads
        self.embed_scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.position_scale = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = embed_tokens
        self.embed_images = ResNet(RESNET_BLOCKS[config.resnet_type])
        self.image_proj = nn.Linear(WIDTH, width)
        self.type_embedding = nn.Embedding(2, width) if config.add_type_embedding else None
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else nn.Identity()
        self.patch_layernorm_embedding = nn.LayerNorm(width) if config.patch_layernorm_embedding else nn.Identity()
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width) if config.encoder_normalize_before else nn.Identity()
        count = 1 if config.share_attn_bias else config.encoder_layers
        self.token_rel_pos_table_list = tables(count, token_distances(config.token_bucket_size), heads)
        self.image_rel_pos_table_list = tables(count, grid_distances(config.image_bucket_size), heads)
        # The official checkpoints hold these two, so they are taken from there and not computed again.
        self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size))
        self.register_buffer("image_rp_bucket", grid_buckets(config.image_bucket_size))

    def forward(self, pictures: Tensor, questions: Tensor) -> Encoding:
        """Encodes N pictures, each with its question.

        Args:
            pictures: (N, 3, H, W) float, normalised; H and W up to 16 times ``image_bucket_size``.
            questions: (N, T) int64, padded at the end; or (1, T) for all.

        """
        grid = self.embed_images(pictures)  # (N, 1024, h, w)
        height, width = grid.shape[-2:]
        places = grid_positions(height, width, self.config.image_bucket_size, pictures.device)
        cell_places = self.cell_embeddings(places, height, width)  # (h * w, D)
        token_places = self.embed_positions.weight[: questions.shape[1]]  # (T, D)
        questions = questions.expand(len(pictures), -1)
        cells = self.embed(self.image_proj(grid.flatten(2).transpose(1, 2)), cell_places, kind=1)
        tokens = self.embed(self.embed_tokens(questions), token_places, kind=0)
        x = torch.cat([self.patch_layernorm_embedding(cells), self.layernorm_embedding(tokens)], dim=1)
        padded = questions == self.config.pad_token_id
        padding = torch.cat([padded.new_zeros(cells.shape[:2]), padded], dim=1)
        x = x.masked_fill(padding[..., None], 0.0)
        positions = torch.cat([self.image_pos_ln(cell_places), self.pos_ln(token_places)])  # (S, D)
        absolute = self.absolute_bias(positions)
        for i, layer in enumerate(self.layers):
            bias = self.layer_bias(i, absolute, places, questions.shape[1])[None]
            if padding.any():
                bias = bias.masked_fill(padding[:, None, None, :], -math.inf)
            x = layer(x, bias)
        return Encoding(self.layer_norm(x), positions, padding)

    def cell_embeddings(self, places: Tensor, height: int, width: int) -> Tensor:
        """The absolute embeddings of a grid's cells, (h * w, D)."""
        side = self.config.orig_patch_image_size // STRIDE
        if self.config.interpolate_position and len(places) > side * side:
            small = grid_positions(side, side, self.config.image_bucket_size, places.device)
            return stretched(self.embed_image_positions(small).view(side, side, -1), height, width)
        embeddings: Tensor = self.embed_image_positions(places)
        return embeddings

    def embed(self, x: Tensor, places: Tensor, kind: int) -> Tensor:
        """Adds to the contents (N, S, D) what kind they are (1 picture, 0 text) and, in some models, where."""
        x = self.embed_scale * x
        if self.config.entangle_position_embedding:
            x = x + places
        return x if self.type_embedding is None else x + self.type_embedding.weight[kind]

    def absolute_bias(self, positions: Tensor) -> Tensor:
        """How much each place attends to each other, whatever is there: (S, D) -> (nh, S, S)."""
        queries = split_heads(self.pos_q_linear(positions), self.heads) * self.position_scale
        return torch.matmul(queries, split_heads(self.pos_k_linear(positions), self.heads).transpose(1, 2))

    def layer_bias(self, layer: int, absolute: Tensor, places: Tensor, tokens: int) -> Tensor:
        """The bias of a layer, (nh, S, S): cells know their relative places among cells, tokens among tokens."""
        table = 0 if self.config.share_attn_bias else layer
        bias = absolute.clone()
        cells = len(places)
        grid = self.get_buffer("image_rp_bucket")[places[:, None], places]
        bias[:, :cells, :cells] += relative_bias(self.image_rel_pos_table_list[table], grid)
        text = self.get_buffer("token_rp_bucket")[:tokens, :tokens]
        bias[:, cells:, cells:] += relative_bias(self.token_rel_pos_table_list[table], text)
        return bias
