"""What makes two encoders the same: a sha256 over weights, architecture, preprocessing and tokenizer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PROBES = (
    "",
    "a photo of a cat",
    "Portrait of an OLD sailor, oil on canvas, by Artemisia Gentileschi, 8k, trending on ArtStation!",
    "(masterpiece:1.2), [[blurry]], <lora:style:0.7> -- seed=42 & cfg 7.5; \"quoted\" 'it's' #1 @home 100%",
    "Œuvre façade naïve, größe, 水彩画, 東京の夜, скетч, رسم, 🎨🌈",
    "  two  spaces\tand\na newline  ",
    ", ".join(f"word{i} lighthouse{i}" for i in range(200)),
)
"""Texts whose token ids tell tokenizers apart: case, punctuation, accents, scripts, white space, and the cut of a
long text."""

Tokenize = Callable[[Sequence[str]], Mapping[str, "torch.Tensor"]]


def fingerprint(
    state_dict: Mapping[str, torch.Tensor], preprocessing: Mapping[str, Any], tokenizer: str, **architecture: Any
) -> str:
    """The fingerprint of an encoder, 64 hexadecimal digits.

    Args:
        state_dict: the weights; see `weights_hash` for what is hashed.
        preprocessing: as its `to_dict` gives it.
        tokenizer: from `tokenizer_hash`.
        architecture: JSON values that change the result but not the weights, such as the activation.

    """
    facts = {
        "weights": weights_hash(state_dict),
        "preprocessing": dict(preprocessing),
        "tokenizer": tokenizer,
        "architecture": architecture,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def weights_hash(state_dict: Mapping[str, torch.Tensor]) -> str:
    """sha256 over the sorted names, shapes and float32 bytes of the floating-point weights.

    Everything is taken in float32, which holds every float16 and bfloat16 value exactly: so the hash is the same for a
    checkpoint in half precision and its float32 copy, and for a model on any device. Integer buffers (position ids)
    are left out, because they come and go between releases of the libraries. Tensors are hashed side by side, each in
    its own thread.
    """
    names = sorted(name for name, tensor in state_dict.items() if tensor.is_floating_point())
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda name: _tensor_digest(state_dict[name]), names)
        whole = hashlib.sha256()
        for name, digest in zip(names, digests, strict=True):
            whole.update(f"{name} {tuple(state_dict[name].shape)} {digest}\n".encode())
    return whole.hexdigest()


def tokenizer_hash(tokenize: Tokenize) -> str:
    """sha256 over the token ids of `PROBES`: what a tokenizer does, however its library stores it."""
    whole = hashlib.sha256()
    for text in PROBES:
        for name, ids in sorted(tokenize([text]).items()):
            whole.update(f"{name} {ids[0].tolist()}\n".encode())
    return whole.hexdigest()


def _tensor_digest(tensor: torch.Tensor) -> str:
    import torch

    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()
