"""`starter`, the embedded default: picture -> EfficientNet-Lite2 -> trained head -> the space of all-MiniLM-L6-v2."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unprompt.encoders import minilm, starter_backbone
from unprompt.encoders.efficientnet_lite import from_state_dict
from unprompt.encoders.memory_head import MemoryHead
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.preprocessing import Preprocessing, stack_pixels
from unprompt.encoders.starter_backbone import GPU_MICRO_BATCH, MICRO_BATCH, StarterBackbone
from unprompt.encoders.starter_head import load_head
from unprompt.encoders.weights_check import sha256_of
from unprompt.errors import EncoderError
from unprompt.types import Embeddings, Pixels

HEAD_PATH = Path(__file__).parent / "weights" / "starter.safetensors"


class StarterEncoder:
    """The `Encoder` that works offline: load it with `load_encoder()`."""

    name = "starter"

    def __init__(self, backbone: StarterBackbone, head: MemoryHead, sha256s: Sequence[str]) -> None:
        self.device = backbone.device
        self.dim = head.config.dim
        values = head.config.preprocessing
        self.preprocess = starter_backbone.PREPROCESSING if values is None else Preprocessing.from_dict(values)
        self.fingerprint = _fingerprint(sha256s, self.preprocess)
        self._backbone = backbone
        self._head = head.to(self.device)

    def encode_images(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        """Embeds N pictures as (N, 384): PIL pictures, or (H, W, 3) uint8 arrays that `preprocess` made.

        Raises:
            EncoderError: an array is not of the size and type that `preprocess` makes.

        """
        size = MICRO_BATCH if self.device == "cpu" else GPU_MICRO_BATCH
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        # On a GPU the micro-batches follow each other; on a CPU each core has its own.
        done = map_side_by_side(self._embed, batches) if self.device == "cpu" else [self._embed(b) for b in batches]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *done])

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, 384); what is beyond 256 tokens is cut off."""
        return self._text_tower.encode(texts)

    @property
    def drafts(self) -> bool:
        """See `unprompt.types.DraftEncoder`."""
        return minilm.makes_drafts(self.device)

    def draft_texts(self, texts: Sequence[str]) -> Embeddings:
        """`encode_texts` in bfloat16, where the processor multiplies it faster; see `unprompt.types.DraftEncoder`."""
        return self._text_tower.draft(texts)

    @torch.inference_mode()
    def _embed(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        pixels = stack_pixels(images, self.preprocess, self.preprocess.size)
        embeddings: Embeddings = self._head(self._backbone.features(pixels, self._inputs)).cpu().numpy()
        return embeddings

    @cached_property
    def _inputs(self) -> tuple[str, ...]:
        """The raw features that the head reads."""
        config = self._head.config
        return tuple(dict.fromkeys((*config.inputs, "logits"))) if config.classes else config.inputs

    @cached_property
    def _text_tower(self) -> minilm.TextTower:
        """Read when the first text comes: a query by picture often needs none."""
        return minilm.TextTower.load(self.device)


def load(name: str = "", device: str = "cpu", head_path: Path = HEAD_PATH) -> StarterEncoder:
    """Loads the encoder; the registry calls this.

    Args:
        name: empty, as there is one starter encoder.
        device: where it computes.
        head_path: the head's weights, in the format of `starter_head.save_head`.

    Raises:
        EncoderError: a weights package or the head is missing, or is not the pinned one.

    """
    if name:
        raise EncoderError(f"there is no starter encoder {name!r}: its name is just 'starter'")
    minilm.weights_folder()  # A missing package is told now, although the texts' weights are read later.
    head, tuned = load_head(head_path)
    backbone = _tuned_backbone(tuned, head_path, device) if tuned else StarterBackbone.load(device)
    width = sum(backbone.width(feature) for feature in head.config.inputs)
    if width != head.config.input_dim:
        raise EncoderError(f"the head {head_path} reads {head.config.input_dim} features, but its inputs have {width}")
    sha256s = [minilm.WEIGHTS_SHA256, minilm.TOKENIZER_SHA256, sha256_of(head_path)]
    return StarterEncoder(backbone, head, sha256s if tuned else [starter_backbone.SHA256, *sha256s])


def _tuned_backbone(weights: Mapping[str, Tensor], path: Path, device: str) -> StarterBackbone:
    """The fine-tuned backbone that came with a head."""
    try:
        return StarterBackbone(from_state_dict(weights), device)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"the backbone in {path} does not fit ({detail}): install unprompt again") from None


def _fingerprint(sha256s: Sequence[str], preprocess: Preprocessing) -> str:
    """One sha256 over those of the weights, and the preprocessing."""
    facts = {"weights": list(sha256s), "preprocessing": preprocess.to_dict()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
