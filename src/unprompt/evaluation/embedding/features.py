"""What a head sees of a picture: the encoder's embedding, or what the starter's backbone saw before its own head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unprompt.encoders import starter_backbone
from unprompt.encoders.memory_head import signed_root
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.preprocessing import stack_pixels
from unprompt.encoders.starter import HEAD_PATH, StarterEncoder
from unprompt.encoders.starter_backbone import GPU_MICRO_BATCH, MICRO_BATCH, StarterBackbone
from unprompt.encoders.starter_head import load_head
from unprompt.errors import EvaluationError
from unprompt.types import Embeddings, Encoder, Pixels

STAGES = range(1, 8)
BACKBONE_INPUTS = (
    "pooled",
    *(f"stage{stage}.{moment}" for stage in STAGES for moment in ("mean", "std")),
    "stage2.cov",
    "stage3.cov",
)
"""Frozen ImageNet features. The starter's own embedding is no input: on the pictures that it learnt from it knows the
prompts, so a head would learn to trust it more than it may on others."""

Images = Sequence[Image.Image | Pixels]


def read_inputs(raw: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Raw features of the backbone side by side, covariances by their signed root: (N, F)."""
    return torch.cat([signed_root(raw[name]) if name.endswith(".cov") else raw[name] for name in names], dim=1)


class Looked(NamedTuple):
    """One look at N pictures.

    Attributes:
        embeddings: (N, D), the encoder's own, by which neighbours are found.
        features: (N, F) float32, for a head.
    """

    embeddings: Embeddings
    features: NDArray[np.float32]


class PictureFeatures(Protocol):
    """Encodes pictures once, for neighbours and for a head."""

    inputs: tuple[str, ...]
    fingerprint: str

    def __call__(self, images: Images) -> Looked: ...


class EncoderFeatures:
    """The features are the embedding of any encoder."""

    inputs: tuple[str, ...] = ()

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint

    def __call__(self, images: Images) -> Looked:
        """Embeds N pictures."""
        rows = self._encoder.encode_images(images)
        return Looked(rows, rows)


class StarterFeatures:
    """The starter's embedding, and features of its frozen backbone, by one pass through it.

    Raises:
        EncoderError: a weights package is missing.
        EvaluationError: the starter's backbone was fine-tuned, so it is not the frozen one.
    """

    def __init__(self, encoder: StarterEncoder, inputs: Sequence[str] = BACKBONE_INPUTS) -> None:
        self.inputs = tuple(inputs)
        self.fingerprint = starter_backbone.SHA256
        self._preprocess = encoder.preprocess
        self._backbone = StarterBackbone.load(encoder.device)
        self._head, tuned = load_head(HEAD_PATH)
        if tuned:
            raise EvaluationError("this starter has a backbone of its own: train a head for its embedding instead")
        self._head.to(encoder.device)
        wanted = (*self._head.config.inputs, "pooled", "logits", *self.inputs)
        self._names = tuple(dict.fromkeys(wanted))

    def __call__(self, images: Images) -> Looked:
        """Embeds N pictures: PIL pictures, or arrays that the encoder's `preprocess` made."""
        on_cpu = self._backbone.device == "cpu"
        size = MICRO_BATCH if on_cpu else GPU_MICRO_BATCH
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        parts = map_side_by_side(self._look, batches) if on_cpu else [self._look(batch) for batch in batches]
        return Looked(np.concatenate([p.embeddings for p in parts]), np.concatenate([p.features for p in parts]))

    @torch.inference_mode()
    def _look(self, images: Images) -> Looked:
        pixels = stack_pixels(images, self._preprocess, self._preprocess.size)
        raw = self._backbone.features(pixels, self._names)
        features = read_inputs(raw, self.inputs)
        return Looked(self._head(raw).cpu().numpy(), features.cpu().numpy())


def picture_features(encoder: Encoder, inputs: Sequence[str] | None = None) -> PictureFeatures:
    """What looks at pictures for a head with these inputs; by default for the kind of head that suits the encoder.

    Raises:
        EvaluationError: the inputs are the starter's, and the encoder is another.
    """
    if isinstance(encoder, StarterEncoder) and inputs != ():
        return StarterFeatures(encoder, BACKBONE_INPUTS if inputs is None else inputs)
    if inputs:
        raise EvaluationError(f"this head reads the starter's features, and the encoder is {encoder.name!r}: train one")
    return EncoderFeatures(encoder)
