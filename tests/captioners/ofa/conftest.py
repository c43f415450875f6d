"""A small OFA with random weights, in a folder as the official ones are."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from captioners.ofa.shared import write_vocabulary
from unprompt.captioners.ofa.config import OfaConfig
from unprompt.captioners.ofa.model import OfaModel
from unprompt.captioners.ofa.tokenizer import OfaTokenizer


def small_config(**changes: object) -> OfaConfig:
    values: dict[str, object] = {
        "vocab_size": 60,
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_ffn_dim": 24,
        "encoder_attention_heads": 4,
        "decoder_layers": 2,
        "decoder_ffn_dim": 20,
        "decoder_attention_heads": 2,
        "resnet_type": "resnet18",
        "token_bucket_size": 4,
        "image_bucket_size": 33,
    }
    return OfaConfig(**{**values, **changes})  # type: ignore[arg-type]


@cache
def random_model(config: OfaConfig, seed: int = 0) -> OfaModel:
    """No parameter is 0 or 1, where leaving it out would not show."""
    torch.manual_seed(seed)
    model = OfaModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() < 3:
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Models here are small."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ofa")
    write_vocabulary(path)
    config = small_config(vocab_size=len(OfaTokenizer(path)), d_model=32)
    (path / "config.json").write_text(json.dumps(config.to_dict()))
    torch.save(random_model(config).state_dict(), path / "pytorch_model.bin")
    return path
