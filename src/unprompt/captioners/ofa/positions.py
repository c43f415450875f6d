"""Where things are, as OFA tells its attention: tables of relative positions, and products of absolute ones.

Attention gets a bias that does not depend on what is seen, only on where: for each pair of positions a learnt value
of their relative position, as in Raffel et al., "T5" (2020) for text and Liu et al., "Swin Transformer" (2021) for
pictures, plus the scaled product of their absolute embeddings, as in Ke et al., "TUPE" (2021).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_TOKENS = 1024
"""Tokens of a text that relative positions exist for."""


def token_distances(bucket_size: int) -> int:
    """How many rows a table of relative token positions has."""
    return 2 * bucket_size - 1


def grid_distances(bucket_size: int) -> int:
    """How many rows a table of relative cell positions has: each pair of offsets, and three for position 0."""
    return (2 * bucket_size - 1) ** 2 + 3


def token_buckets(bucket_size: int) -> Tensor:
    """The table's row for each pair of token positions, (1024, 1024) int64.

    Distances below half of ``bucket_size`` have a row each; beyond, rows stand for ranges that grow logarithmically.
    """
    offset = torch.arange(1 - MAX_TOKENS, MAX_TOKENS)
    near = bucket_size // 2
    # Near offsets are set to a constant that keeps the logarithm finite; they are not read from it.
    distance = torch.where(offset.abs() < near, near - 1, offset.abs())
    steps = torch.log(distance / near) / math.log((MAX_TOKENS - 1) / near) * (near - 1)
    far = (torch.ceil(steps).int() + near) * offset.sign()
    bucket = torch.where(distance <= near, offset, far).long() + bucket_size - 1
    place = torch.arange(MAX_TOKENS)
    return bucket[place[:, None] - place[None, :] + MAX_TOKENS - 1]


def grid_buckets(bucket_size: int) -> Tensor:
    """The table's row for each pair of cells of a square grid, (B * B + 1, B * B + 1) int64.

    Cell (row, column) is position ``row * B + column + 1``; position 0 is none of the cells, and has rows of its own.
    """
    place = torch.arange(bucket_size * bucket_size)
    row, column = place // bucket_size, place % bucket_size
    rows = row[:, None] - row[None, :] + bucket_size - 1
    columns = column[:, None] - column[None, :] + bucket_size - 1
    buckets = torch.empty((len(place) + 1, len(place) + 1), dtype=torch.int64)
    buckets[1:, 1:] = rows * (2 * bucket_size - 1) + columns
    distances = grid_distances(bucket_size)
    buckets[0, :] = distances - 3
    buckets[:, 0] = distances - 2
    buckets[0, 0] = distances - 1
    return buckets


def grid_positions(height: int, width: int, bucket_size: int, device: torch.device | None = None) -> Tensor:
    """The positions of a grid's cells, (height * width,) int64, row by row."""
    row = torch.arange(height, device=device)[:, None] * bucket_size
    return (row + torch.arange(width, device=device) + 1).flatten()


def drawn_positions(code_image_size: int, bucket_size: int) -> Tensor:
    """The positions of the cells that a decoder draws: position 0, a cell for each 8 x 8 pixels, and 768 unused."""
    side = code_image_size // 8
    return torch.cat([torch.tensor([0]), grid_positions(side, side, bucket_size), torch.tensor([1024] * 768)])


def tables(count: int, rows: int, heads: int) -> nn.ModuleList:
    """Tables of relative positions: a value for each row and head, 0 before training."""
    modules = nn.ModuleList(nn.Embedding(rows, heads) for _ in range(count))
    for module in modules:
        nn.init.zeros_(module.weight)  # type: ignore[arg-type]
    return modules


def relative_bias(table: nn.Module, buckets: Tensor) -> Tensor:
    """Looks buckets (T, S) up in a table: (nh, T, S)."""
    values: Tensor = table(buckets)
    return values.permute(2, 0, 1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., T, D) -> (..., nh, T, hs)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)


def stretched(cells: Tensor, height: int, width: int) -> Tensor:
    """Embeddings (h, w, D) of a grid stretched to a larger one: (height * width, D), bilinear."""
    grown = F.interpolate(cells.permute(2, 0, 1)[None], size=(height, width), mode="bilinear")
    return grown[0].permute(1, 2, 0).flatten(0, 1)
