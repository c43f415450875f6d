"""open_clip's text towers, computed no further than a batch's longest text.

open_clip pads every text to the model's context length, 77 tokens as a rule, and computes all of them. Two kinds of
tower make nothing of what is padded: a causal one whose answer stands where the text ends, for no position looks to its
right, and one of transformers', which masks padding. There a batch is cut to its longest text, and the answers are the
same up to rounding. All others are given the full length: SigLIP's, which looks both ways and answers at the last
position; CoCa's, whose answer stands behind the padding; and whatever is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

MASKING_TOWERS = ("bert", "roberta", "xlm-roberta")
"""transformers' architectures that look at nothing which is masked, and whose positions do not depend on the padding
behind a text."""
MASKING_POOLERS = ("MeanPooler", "ClsPooler", "ClsLastHiddenStatePooler")


class TextTower:
    """The text tower of one model.

    Args:
        model: as open_clip builds it, on the CPU; it may be moved and made half precision later.

    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._needed = _columns_needed(model)

    def cut(self, ids: Tensor) -> Tensor:
        """The first columns of token ids (B, T), as many as the answers depend on."""
        return ids if self._needed is None else ids[:, : self._needed(ids)]

    def encode(self, ids: Tensor) -> Tensor:
        """What open_clip's ``encode_text`` gives for (B, T) ids before they were cut, (B, D)."""
        whole = self._needed is None or ids.shape[1] == self._model.context_length
        features: Tensor = (self._model if whole else _shortened(self._model, ids.shape[1])).encode_text(ids)
        return features


def _columns_needed(model: Any) -> Callable[[Tensor], int] | None:
    """Says of ids (B, T) how many of the first columns the answers depend on; None where it may be all."""
    import open_clip
    from open_clip.hf_model import HFTextEncoder
    from open_clip.transformer import TextTransformer

    if type(model) is open_clip.CLIP:  # what inherits from it may answer elsewhere
        return _ends(model, getattr(model, "text_pool_type", None), getattr(model, "text_eos_id", None))
    if type(model) is not open_clip.CustomTextCLIP:
        return None
    tower = model.text
    if type(tower) is TextTransformer and tower.cls_emb is None:
        return _ends(tower, tower.pool_type, getattr(tower, "eos_id", None))
    if type(tower) is HFTextEncoder and tower.config.model_type in MASKING_TOWERS:
        masks = type(tower.pooler).__name__ in MASKING_POOLERS
        return _unpadded(tower.config.pad_token_id) if masks else None
    return None


def _ends(tower: Any, pool: str | None, end: int | None) -> Callable[[Tensor], int] | None:
    """For a causal tower that answers where a text ends: at its greatest id, or at the first one that says so."""
    mask, positions = tower.attn_mask, len(tower.positional_embedding)
    if mask is None or not torch.equal(mask, torch.full((positions, positions), -torch.inf).triu(1)):
        return None
    if pool == "argmax":
        return lambda ids: int(ids.argmax(dim=-1).max()) + 1
    if pool == "eos" and end is not None:
        return lambda ids: int((ids == end).int().argmax(dim=-1).max()) + 1
    return None


def _unpadded(pad: int) -> Callable[[Tensor], int]:
    def needed(ids: Tensor) -> int:
        held = ids != pad
        # Of a text of padding alone nothing is left to look at: what comes of it depends on how much there is.
        return int(held.any(dim=0).nonzero().max()) + 1 if bool(held.any(dim=1).all()) else ids.shape[1]

    return needed


def _shortened(model: Any, length: int) -> Any:
    """A model of the same weights that takes texts of `length` ids.

    open_clip adds the positions of the full length, and its mask, to whatever it is given. The model itself is left
    alone, for several threads use it.
    """
    tower = model._modules.get("text")
    if tower is None:
        return _shortened_tower(model, length)
    short = copy(model)
    short._modules = {**model._modules, "text": _shortened_tower(tower, length)}
    return short


def _shortened_tower(tower: Any, length: int) -> Any:
    if "positional_embedding" not in tower._parameters:  # transformers' towers take any length
        return tower
    short = copy(tower)
    short._parameters = {**tower._parameters, "positional_embedding": tower.positional_embedding[:length]}
    short._buffers = {**tower._buffers, "attn_mask": tower.attn_mask[:length, :length]}
    return short
