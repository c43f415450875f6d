"""all-MiniLM-L6-v2 with matrix products in bfloat16: drafts of what `minilm` computes, in a third of the time.

Products of matrices are bfloat16, with sums in float32 inside them; the residual stream, its norms and the mean stay
float32, which takes no longer and halves the error. Attention takes texts of like length in one call, each padded to
its own next multiple of 16: the kernel takes longer for other lengths, and for more calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.minilm import DIM, HEADS, Layer, MiniLM
from unprompt.encoders.parallel import map_side_by_side
from unprompt.types import Embeddings

STEP = 16
"""Attention's lengths are multiples of this."""
LEAST_ROWS, MOST_ROWS = 64, 320
"""Rows of a product that is 1536 wide. oneDNN cuts its sums otherwise when there are fewer than 37, or 384 and more, so
that the last bits of a row would depend on how many texts there are; `DraftMiniLM.rows_stand_alone` looks whether so
it is on this processor."""


class Group(NamedTuple):
    """N texts that attention pads to the same length.

    Attributes:
        shape: N, and the length L.
        rows: (N * L,) int64, the packed row that each place takes; padding takes the text's first.
        places: (T,) int64, where the T rows of these texts stand among the N * L.
        mask: (N, 1, 1, L) bfloat16, -inf for padding.
    """

    shape: tuple[int, int]
    rows: Tensor
    places: Tensor
    mask: Tensor


class Product:
    """A linear layer in bfloat16: (T, in) -> (T, out), with its weights in oneDNN's own order where PyTorch can.

    Otherwise they are put in that order for every product, which takes a fifth of the time of 400 rows.
    """

    def __init__(self, layer: nn.Linear) -> None:
        weight, self._bias = layer.weight.to(torch.bfloat16), layer.bias.to(torch.bfloat16)
        try:  # there is no public name for it
            self._weight, self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, LEAST_ROWS), True
            self(torch.zeros(1, layer.in_features, dtype=torch.bfloat16))
        except (AttributeError, RuntimeError):
            self._weight, self._packed = weight, False

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packed:
            return F.linear(x, self._weight, self._bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


class DraftLayer:
    """`Layer` in bfloat16 over packed texts."""

    def __init__(self, layer: Layer) -> None:
        self.qkv, self.out, self.up, self.down = map(Product, (layer.qkv, layer.out, layer.up, layer.down))
        self._norm1, self._norm2 = layer.norm1, layer.norm2

    def __call__(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        x = self._norm1(x + self.out(self._attend(self.qkv(x.to(torch.bfloat16)), groups)))  # (T, 384) float32
        hidden = F.gelu(self.up(x.to(torch.bfloat16)))  # (T, 1536) bfloat16
        parts = hidden.tensor_split(-(-len(hidden) // MOST_ROWS))
        lowered = self.down(hidden) if len(parts) == 1 else torch.cat([self.down(part) for part in parts])
        out: Tensor = self._norm2(x + lowered)
        return out

    def _attend(self, qkv: Tensor, groups: Sequence[Group]) -> Tensor:
        """Each text attends to itself: (T, 3 * 384) -> (T, 384)."""
        parts = []
        for (count, length), rows, places, mask in groups:
            padded = qkv.index_select(0, rows).view(count, length, 3, HEADS, DIM // HEADS)
            q, k, v = padded.permute(2, 0, 3, 1, 4)  # each (N, nh, L, hs)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            parts.append(mixed.transpose(1, 2).reshape(count * length, DIM).index_select(0, places))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class DraftMiniLM:
    """`MiniLM` in bfloat16, on the CPU; its copy of the layers' weights takes 21 MB.

    Embeddings are within 0.02 of `MiniLM`'s, by the norm of the difference; mostly it is 0.007.
    """

    least_tokens = 200
    """Tokens that are worth a pass: passes side by side wait for each other between operations, which are short here.
    A round of 12 texts of 770 tokens took 37 ms in four passes on four cores, 27 in three, 31 in two and 41 in one.
    A pass with fewer than `LEAST_ROWS` is filled up."""

    def __init__(self, model: MiniLM) -> None:
        self._model = model
        self._layers = [DraftLayer(layer) for layer in model.layers if isinstance(layer, Layer)]

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> Embeddings:
        """Embeds N texts, by their tokens, as (N, 384)."""
        total = sum(map(len, batch))
        filled = [*batch, [0] * (LEAST_ROWS - total)] if total < LEAST_ROWS else batch
        lengths = [len(row) for row in filled]
        ids = torch.tensor([token for row in filled for token in row])
        positions = torch.cat([torch.arange(length) for length in lengths])
        groups = _groups(lengths)
        x = self._model.norm(F.embedding(ids, self._model.words) + F.embedding(positions, self._model.positions))
        for layer in self._layers:
            x = layer(x, groups)
        means = torch.stack([text.mean(dim=0) for text in torch.split(x, lengths)[: len(batch)]])
        embeddings: Embeddings = F.normalize(means, dim=1).numpy()
        return embeddings

    @cached_property
    def rows_stand_alone(self) -> bool:
        """Whether a row of a product is the same to the bit however many rows there are, within the bounds kept."""

        def found(_: None) -> bool:
            generator = torch.Generator().manual_seed(0)
            first = self._layers[0]
            for product, width in ((first.qkv, DIM), (first.up, DIM), (first.down, 4 * DIM)):
                rows = torch.randn(MOST_ROWS, width, generator=generator).to(torch.bfloat16)
                whole = product(rows)
                sizes = (LEAST_ROWS, LEAST_ROWS + 1, 100, 128, 191, 256)
                if not all(torch.equal(product(rows[-size:]), whole[-size:]) for size in sizes):
                    return False
            return True

        return all(map_side_by_side(torch.inference_mode()(found), [None]))


def _groups(lengths: Sequence[int]) -> list[Group]:
    """Texts of these lengths, packed in this order, as groups of neighbours with the same padded length."""
    groups = []
    start = 0
    for padded, members in groupby(lengths, key=lambda length: -(-length // STEP) * STEP):
        own = np.array(list(members))[:, None]  # (N, 1)
        starts = start + np.cumsum(own)[:, None] - own
        column = np.arange(padded)
        real = column < own  # (N, L)
        rows, places = np.where(real, starts + column, starts), np.flatnonzero(real)
        mask = torch.zeros(real.shape, dtype=torch.bfloat16).masked_fill_(torch.from_numpy(~real), -torch.inf)
        index = torch.from_numpy(rows.ravel()), torch.from_numpy(places)
        groups.append(Group((len(own), padded), *index, mask[:, None, None]))
        start += int(own.sum())
    return groups
