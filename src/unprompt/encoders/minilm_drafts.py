"""all-MiniLM-L6-v2 with matrix products in bfloat16: drafts of what `minilm` computes, in a third of the time.

Products of matrices are bfloat16, with sums in float32 inside them; the residual stream, its norms and the mean stay
float32, which takes no longer and halves the error. Attention takes texts of like length in one call, each padded to
its own next multiple of 16: the kernel takes longer for other lengths, and for more calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.minilm import DIM, HEADS, Layer, MiniLM
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.scripted import scripted
from unprompt.types import Embeddings

STEP = 16
"""Attention's lengths are multiples of this."""
ROWS = 32
"""The rows of a pass are a multiple of this: oneDNN compiles a kernel for each number of rows that it meets, and it is
kept. On a busy machine, 300 rounds of 8 to 16 texts took 500 MB and 17 s on one core; filled up to 32s of rows 85 MB
and 12 s, to 64s 44 MB and 12 s. On four cores it was 500 MB and 13 s; 47 MB and 10 s; 34 MB and 11 s."""
LEAST_ROWS, MOST_ROWS = 64, 320
"""Rows of a product that is 1536 wide. oneDNN cuts its sums otherwise when there are fewer than 37, or 384 and more, so
that the last bits of a row would depend on how many texts there are; `DraftMiniLM.rows_stand_alone` looks whether so
it is on this processor."""
LEAST_TOKENS, LEAST_TOKENS_EAGER = 128, 200
"""Tokens that are worth a pass, which is then filled up to rows as above. Eager passes wait for each other between
operations: on four quiet cores a round of 12 texts of 770 tokens took them 31 ms in four passes and 25 in three,
compiled passes 17 in four and 18 in three."""

Linear = tuple[Tensor, Tensor]
"""Weight and bias of a linear layer, or of a norm."""
DraftLayer = tuple[Linear, Linear, Linear, Linear, Linear, Linear]
"""`Layer`'s qkv, out, up and down in bfloat16, its norm1 and norm2 in float32."""
Group = tuple[tuple[int, int], Tensor, Tensor, Tensor]
"""N texts that attention pads to the same length L:

- N and L;
- (N * L,) int64, the packed row that each place takes; padding takes the text's first;
- (T,) int64, where the T rows of these texts stand among the N * L;
- (N, 1, 1, L) bfloat16, -inf for padding.

No named tuple: where annotations are strings, TorchScript cannot read one."""


def forward(
    ids: Tensor,
    positions: Tensor,
    lengths: list[int],
    groups: list[Group],
    tables: Linear,
    norm: Linear,
    layers: list[DraftLayer],
    packed: bool,
) -> Tensor:
    """`MiniLM.forward` in bfloat16, in words that TorchScript knows; so are the functions that it calls.

    Args:
        ids: (T,) int64, all tokens of all texts end to end.
        positions: (T,) int64, the place of each token in its own text.
        lengths: tokens of each text.
        groups: `_groups(lengths)`.
        tables: what words and positions embed as, (V, 384) and (P, 384) float32.
        norm: of the sum of these.
        layers: the weights.
        packed: whether those in bfloat16 are in oneDNN's own order.

    Returns:
        (N, 384) float32, rows of norm 1, in the order of packing.

    """
    x = normalise(F.embedding(ids, tables[0]) + F.embedding(positions, tables[1]), norm)  # (T, 384)
    for layer in layers:
        x = transform(x, layer, groups, packed)
    means = torch.stack([text.mean(dim=0) for text in torch.split(x, lengths)])
    return F.normalize(means, dim=1)


def transform(x: Tensor, layer: DraftLayer, groups: list[Group], packed: bool, most_rows: int = MOST_ROWS) -> Tensor:
    """`Layer` in bfloat16 over packed texts: (T, 384) float32 -> the same."""
    qkv, out, up, down, norm1, norm2 = layer
    mixed = attend(product(x.to(torch.bfloat16), qkv, packed), groups)  # (T, 384) bfloat16
    x = normalise(x + product(mixed, out, packed), norm1)
    hidden = F.gelu(product(x.to(torch.bfloat16), up, packed))  # (T, 1536) bfloat16
    parts = [product(part, down, packed) for part in hidden.tensor_split(-(-len(hidden) // most_rows))]
    return normalise(x + (parts[0] if len(parts) == 1 else torch.cat(parts)), norm2)


def attend(qkv: Tensor, groups: list[Group], heads: int = HEADS) -> Tensor:
    """Each text attends to itself: (T, 3 * 384) -> (T, 384)."""
    parts: list[Tensor] = []
    for (count, length), rows, places, mask in groups:
        split = qkv.index_select(0, rows).view(count, length, 3, heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, nh, L, hs)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        parts.append(mixed.transpose(1, 2).reshape(count * length, -1).index_select(0, places))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def product(x: Tensor, layer: Linear, packed: bool) -> Tensor:
    """A linear layer: (T, in) -> (T, out)."""
    if packed:  # there is no public name for it
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer[0], layer[1], "none", [], "")
    else:
        y = F.linear(x, layer[0], layer[1])
    return y


def normalise(x: Tensor, norm: Linear) -> Tensor:
    """A layer norm as BERT's: (T, 384) -> (T, 384)."""
    return F.layer_norm(x, norm[0].shape, norm[0], norm[1], 1e-12)


class DraftMiniLM:
    """`MiniLM` in bfloat16, on the CPU; its copy of the layers' weights takes 21 MB.

    Embeddings are within 0.02 of `MiniLM`'s, by the norm of the difference; mostly it is 0.007.

    Attributes:
        least_tokens: tokens that are worth a pass.

    """

    @torch.inference_mode()
    def __init__(self, model: MiniLM) -> None:
        self._tables, self._norm = (model.words, model.positions), (model.norm.weight, model.norm.bias)
        self._layers = [_in_bfloat16(layer) for layer in model.layers if isinstance(layer, Layer)]
        try:
            ordered = [_in_onednns_order(layer) for layer in self._layers]
            product(torch.zeros(1, DIM, dtype=torch.bfloat16), ordered[0][0], packed=True)
        except (AttributeError, RuntimeError):  # not in this build
            self._packed, self._forward = False, forward
        else:
            self._packed, self._layers = True, ordered
            self._forward = scripted(forward, *self._arguments([[0] * length for length in (40, 17, 20, 3)]))
        self.least_tokens = LEAST_TOKENS_EAGER if self._forward is forward else LEAST_TOKENS

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> Embeddings:
        """Embeds N texts, by their tokens, as (N, 384)."""
        total = sum(map(len, batch))
        short = max(LEAST_ROWS, -(-total // ROWS) * ROWS) - total
        filled = [*batch, [0] * short] if short else batch
        embeddings: Embeddings = self._forward(*self._arguments(filled))[: len(batch)].numpy()
        return embeddings

    def _arguments(self, batch: Sequence[Sequence[int]]) -> tuple[Any, ...]:
        """What `forward` takes for these texts."""
        lengths = [len(row) for row in batch]
        ids = torch.tensor([token for row in batch for token in row])
        positions = torch.cat([torch.arange(length) for length in lengths])
        return ids, positions, lengths, _groups(lengths), self._tables, self._norm, self._layers, self._packed

    @cached_property
    def rows_stand_alone(self) -> bool:
        """Whether a row of a product is the same to the bit however many rows there are, within the bounds kept."""

        def found(_: None) -> bool:
            generator = torch.Generator().manual_seed(0)
            qkv, _out, up, down, _norm1, _norm2 = self._layers[0]
            for layer, width in ((qkv, DIM), (up, DIM), (down, 4 * DIM)):
                rows = torch.randn(MOST_ROWS, width, generator=generator).to(torch.bfloat16)
                whole = product(rows, layer, self._packed)
                sizes = (LEAST_ROWS, LEAST_ROWS + 1, 100, 128, 191, 256)
                if not all(torch.equal(product(rows[-size:], layer, self._packed), whole[-size:]) for size in sizes):
                    return False
            return True

        return all(map_side_by_side(torch.inference_mode()(found), [None]))


def _in_bfloat16(layer: Layer) -> DraftLayer:
    def halved(linear: nn.Linear) -> Linear:
        return linear.weight.to(torch.bfloat16), linear.bias.to(torch.bfloat16)

    norm1, norm2 = (layer.norm1.weight, layer.norm1.bias), (layer.norm2.weight, layer.norm2.bias)
    return halved(layer.qkv), halved(layer.out), halved(layer.up), halved(layer.down), norm1, norm2


def _in_onednns_order(layer: DraftLayer) -> DraftLayer:
    """Otherwise weights are put in that order for every product, which takes a fifth of the time of 400 rows."""

    def ordered(linear: Linear) -> Linear:  # there is no public name for it
        return torch.ops.mkldnn._reorder_linear_weight(linear[0], LEAST_ROWS), linear[1]

    qkv, out, up, down, norm1, norm2 = layer
    return ordered(qkv), ordered(out), ordered(up), ordered(down), norm1, norm2


def _groups(lengths: Sequence[int]) -> list[Group]:
    """Texts of these lengths, packed in this order, as groups of neighbours with the same padded length."""
    groups: list[Group] = []
    start = 0
    for padded, members in groupby(lengths, key=lambda length: -(-length // STEP) * STEP):
        own = np.array(list(members))[:, None]  # (N, 1)
        starts = start + np.cumsum(own)[:, None] - own
        column = np.arange(padded)
        real = column < own  # (N, L)
        rows, places = np.where(real, starts + column, starts), np.flatnonzero(real)
        mask = torch.zeros(real.shape, dtype=torch.bfloat16).masked_fill_(torch.from_numpy(~real), -torch.inf)
        index = torch.from_numpy(rows.ravel()), torch.from_numpy(places)
        groups.append(((len(own), padded), *index, mask[:, None, None]))
        start += int(own.sum())
    return groups
