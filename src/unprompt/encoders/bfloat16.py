"""Whether this processor multiplies bfloat16 matrices faster than float32."""

from __future__ import annotations

from functools import cache


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has units for products of bfloat16 matrices (AMX), and PyTorch uses them.

    Instructions for bfloat16 vectors (AVX512-BF16) are not enough: a batch of 64 takes as long as in float32.
    """
    import torch

    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)  # there is no public name for it
    return bool(has_tiles and has_tiles() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
