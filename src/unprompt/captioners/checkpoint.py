"""A trained captioner as a folder: ``config.json``, ``tokenizer.json``, ``model.safetensors`` in half precision."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unprompt.captioners.config import read_config
from unprompt.captioners.interface import CaptionerError, CaptionModel
from unprompt.captioners.prompt_lm import PromptLMConfig
from unprompt.captioners.registry import model_class
from unprompt.captioners.tokenizer import CaptionTokenizer, load_tokenizer
from unprompt.index.files import write_durably

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
_OWN = "unprompt"
"""The key of our own facts in ``config.json``; beside it a language model has transformers' keys."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint was trained on, and how it is to be fed.

    Attributes:
        captioner: a key of `registry.TRAINABLE`.
        backbone: the name of what makes its grids; "" for a language model.
        backbone_fingerprint: of the backbone it was trained on.
        neighbours: K, how many neighbours' prompts it was trained to attend to; 0 for none.
        neighbour_share: how much of each next token neighbours' prompts decide when any are told, in [0, 1); what the
            development split likes best.
        encoder: the name of the encoder that embeds neighbours' prompts; "" without neighbours.
        encoder_fingerprint: of that encoder's text side, see `texts.texts_fingerprint`.
        text: how prompts were written in training, see `config.TEXTS`.
        training: the run: its configuration, data and outcome, as JSON.
    """

    captioner: str
    backbone: str = ""
    backbone_fingerprint: str = ""
    neighbours: int = 0
    neighbour_share: float = 0.0
    encoder: str = ""
    encoder_fingerprint: str = ""
    text: str = "as-is"
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A captioner that was read: the model is in evaluation mode, in float32."""

    card: Card
    model: CaptionModel
    tokenizer: CaptionTokenizer


def save_checkpoint(folder: Path, card: Card, model: CaptionModel, tokenizer: CaptionTokenizer) -> None:
    """Writes the folder; each file is replaced whole, and ``config.json``, which tells that it is done, comes last.

    Args:
        folder: made if it is missing.
        card: the facts.
        model: its floating-point weights are stored in float16.
        tokenizer: of the captions.
    """
    facts: dict[str, Any] = {_OWN: asdict(card) | {"model": model.config.to_dict()}}
    if isinstance(model.config, PromptLMConfig):
        facts |= model.config.to_transformers(tokenizer.begin, tokenizer.end, tokenizer.pad)
    weights = save({name: _half(tensor) for name, tensor in model.weights().items()}, metadata={"format": "pt"})
    write_durably(folder / WEIGHTS, lambda file: file.write(weights))
    tokenizer.save(folder / TOKENIZER)
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    write_durably(folder / CONFIG, lambda file: file.write(text.encode("utf-8")))


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """Reads what `save_checkpoint` wrote.

    Raises:
        CaptionerError: the folder is no checkpoint, or its files do not fit together.
    """
    card, options = _read_config(folder)
    kind = model_class(card.captioner)
    tokenizer = load_tokenizer(folder / TOKENIZER)
    try:
        weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise CaptionerError(f"cannot read {folder / WEIGHTS} ({error}): train or install it again") from None
    try:
        model = kind(kind.config_class.from_dict(options))
    except TypeError as error:
        raise CaptionerError(f"{folder / CONFIG} is not of this version ({error}): train it again") from None
    if model.config.vocabulary != tokenizer.vocabulary:
        raise CaptionerError(
            f"{folder} has {tokenizer.vocabulary} tokens in {TOKENIZER} but {model.config.vocabulary} in {CONFIG}: "
            "take both files from one run"
        )
    model.load_weights(weights)
    return Checkpoint(card, model.to(device).eval().requires_grad_(False), tokenizer)


def _read_config(folder: Path) -> tuple[Card, dict[str, Any]]:
    path = folder / CONFIG
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))[_OWN]
        options = facts.pop("model")
    except FileNotFoundError:
        raise CaptionerError(f"no {path}: give a folder that `unprompt train` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaptionerError(f"{path} is no captioner's ({error}): give a folder that `unprompt train` wrote") from None
    return read_config(Card, facts), options


def _half(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor
