"""Official OFA folders: the architecture, the weights by name and strictly, and how the model is asked.

``config.json`` comes with ``model.safetensors`` or ``pytorch_model.bin``, which is unpickled with ``weights_only``.
modelscope's folders also have a ``configuration.json``, with the pictures' size and the question.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.ofa.config import OfaConfig, picture_size
from unprompt.captioners.ofa.model import OfaModel
from unprompt.captioners.ofa.positions import drawn_positions, grid_buckets, token_buckets
from unprompt.captioners.ofa.resnet import STRIDE

logger = logging.getLogger(__name__)

QUESTION = " what does the image describe?"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HALVES = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Task:
    """How a model was trained to be asked.

    Attributes:
        size: the side of the square picture in pixels, a multiple of 16.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        question: what the picture comes with, leading space included.

    """

    size: int
    mean: tuple[float, float, float] = _HALVES
    std: tuple[float, float, float] = _HALVES
    question: str = QUESTION


def read_config(folder: Path) -> OfaConfig:
    """The architecture of a folder's model.

    Raises:
        CaptionerError: there is no ``config.json``, or it is not of an OFA that is supported.

    """
    return OfaConfig.from_dict(_read_json(folder / "config.json"))


def read_task(folder: Path, config: OfaConfig, size: int | None = None) -> Task:
    """What modelscope's ``configuration.json`` says about pictures and question, or what the size was trained with.

    Args:
        folder: the model's.
        config: its architecture.
        size: overrides the pictures' size.

    Raises:
        CaptionerError: the file is damaged, the model speaks Chinese, or the size is none that the model can read.

    """
    path = folder / "configuration.json"
    values = _read_json(path).get("model") if path.is_file() else None
    values = values if isinstance(values, dict) else {}
    if values.get("language", "en") != "en":
        raise CaptionerError(f"{folder} is an OFA for {values['language']!r}: only English ones are supported")
    mean, std = _IMAGENET if values.get("imagenet_default_mean_and_std") else (_HALVES, _HALVES)
    side = size or values.get("patch_image_size", picture_size(config))
    largest = STRIDE * config.image_bucket_size
    if not isinstance(side, int) or side % STRIDE or not 0 < side <= largest:
        raise CaptionerError(f"OFA cannot read pictures of {side!r} pixels: use a multiple of {STRIDE} up to {largest}")
    return Task(side, mean, std, str(values.get("prompt", QUESTION)))


def load_model(folder: Path, config: OfaConfig) -> OfaModel:
    """Reads a folder's weights, in float32, ready for inference.

    Raises:
        CaptionerError: there are none, they are damaged, or they are not exactly those of the configuration.

    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise CaptionerError(f"{folder} has neither {' nor '.join(WEIGHTS)}: copy the weights there")
    state = _official(_read_weights(path))
    _tie(state, config, path)
    _add_buffers(state, config)
    with torch.device("meta"):
        model = OfaModel(config)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise CaptionerError(f"{path} is not the model of its config.json ({detail}): copy both again") from None
    return model.eval().requires_grad_(False)


def tied_names(config: OfaConfig) -> tuple[str, ...]:
    """The names under which a checkpoint holds the token embeddings; safetensors hold them once, under any."""
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    return (*names, "decoder.output_projection.weight") if config.share_decoder_input_output_embed else names


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaptionerError(f"there is no {path}: give a folder with an OFA model") from None
    except (OSError, ValueError) as error:
        raise CaptionerError(f"{path} cannot be read ({' '.join(str(error).split())}): copy it again") from None
    if not isinstance(values, dict):
        raise CaptionerError(f"{path} holds no JSON object: copy it again")
    return values


def _read_weights(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # The library's own message recommends switching the protection off.
        raise CaptionerError(f"{path} is damaged, or holds code and not only weights: save its state_dict") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError, ValueError, BadZipFile) as error:
        detail = " ".join(str(error).split())[:200]
        raise CaptionerError(f"{path} cannot be read ({detail}): copy it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CaptionerError(f"{path} holds no plain state_dict: save the model's state_dict there")
    return state


def _official(state: State) -> State:
    """The weights in float32, under the names of `OfaModel`."""
    # modelscope's trainer saves the task around the model; and its loader renames gamma.
    inner = "model." if state and all(name.startswith("model.") for name in state) else ""
    named = {name.removeprefix(inner).replace("gamma_", "weight_"): value for name, value in state.items()}
    for name in ("encoder.version", "decoder.version"):  # fairseq's own bookkeeping
        named.pop(name, None)
    return {name: value.float() if value.is_floating_point() else value for name, value in named.items()}


def _tie(state: State, config: OfaConfig, path: Path) -> None:
    """Gives all names of the token embeddings one tensor."""
    names = tied_names(config)
    held = [state[name] for name in names if name in state]
    if any(other.shape != held[0].shape or not torch.equal(other, held[0]) for other in held[1:]):
        raise CaptionerError(f"{path} has more than one {names[0]}: save the model as it was trained")
    if held:
        state.update(dict.fromkeys(names, held[0]))


def _add_buffers(state: State, config: OfaConfig) -> None:
    """Computes the tables of positions that a checkpoint leaves out: they follow from the configuration."""
    tokens, cells = "token_rp_bucket", "image_rp_bucket"
    for half in ("encoder", "decoder"):
        if f"{half}.{tokens}" not in state:
            state[f"{half}.{tokens}"] = token_buckets(config.token_bucket_size)
        if f"{half}.{cells}" not in state:
            state[f"{half}.{cells}"] = grid_buckets(config.image_bucket_size)
    if "decoder.image_position_idx" not in state:
        state["decoder.image_position_idx"] = drawn_positions(config.code_image_size, config.image_bucket_size)
