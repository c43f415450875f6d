"""The head of `starter`: raw features -> the 384-d text space. Its weights file says what shape it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.memory_head import MEMORY_FORMAT, MemoryConfig, MemoryHead
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.errors import EncoderError

FORMAT = "unprompt-starter-head/1"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
BACKBONE_PREFIX = "backbone."


@dataclass(frozen=True)
class HeadConfig:
    """What the head reads and how wide it is.

    Attributes:
        inputs: names of raw features, concatenated in this order (see `starter.StarterBackbone.features`).
        input_dim: D, the sum of their widths.
        hidden: widths of the hidden layers; empty makes the head linear.
        activation: a key of `ACTIVATIONS`.
        layer_norm: a layer norm before each activation.
        skip: a linear map straight from the inputs is added to the output.
        classes: class probabilities times class-name embeddings are added, scaled by a learnt factor.
        dim: width of the output.
        preprocessing: `Preprocessing.to_dict`; None stands for the backbone's own.

    """

    inputs: tuple[str, ...]
    input_dim: int
    hidden: tuple[int, ...] = ()
    activation: str = "gelu"
    layer_norm: bool = False
    skip: bool = False
    classes: bool = False
    dim: int = 384
    preprocessing: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """One line of JSON, as it stands in the weights file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> HeadConfig:
        """Reads what `to_json` wrote.

        Raises:
            EncoderError: it is of another format, or a key is missing or unknown.

        """
        try:
            values = json.loads(text)
            if values.pop("format", None) != FORMAT:
                raise EncoderError(f"the head's weights are not of format {FORMAT!r}: install unprompt again")
            values["inputs"], values["hidden"] = tuple(values["inputs"]), tuple(values.get("hidden", ()))
            if values.get("activation", "gelu") not in ACTIVATIONS:
                raise EncoderError(
                    f"the head's activation {values['activation']!r} is none of {', '.join(ACTIVATIONS)}"
                )
            if values.get("preprocessing") is not None:
                Preprocessing.from_dict(values["preprocessing"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EncoderError(f"the head's configuration is not valid ({error}): install unprompt again") from None


class StarterHead(nn.Module):
    """Standardised features -> MLP (+ linear skip, + class names) -> rows of norm 1."""

    input_mean: Tensor
    input_std: Tensor
    class_embeddings: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.input_dim, *config.hidden, config.dim)
        self.register_buffer("input_mean", torch.zeros(config.input_dim))
        self.register_buffer("input_std", torch.ones(config.input_dim))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.hidden if config.layer_norm)
        self.skip = nn.Linear(config.input_dim, config.dim, bias=False) if config.skip else None
        if config.classes:
            self.register_buffer("class_embeddings", torch.zeros(1000, config.dim))
            self.class_scale = nn.Parameter(torch.tensor(1.0))
            self.class_temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Maps raw features, each (N, width) float32, to (N, dim) float32 of norm 1."""
        x = torch.cat([features[name] for name in self.config.inputs], dim=1)  # (N, D)
        x = (x - self.input_mean) / self.input_std
        y = self.mlp(x)  # (N, dim)
        if self.skip is not None:
            y = y + self.skip(x)
        if self.config.classes:
            probabilities = (features["logits"] / self.class_temperature).softmax(dim=1)  # (N, 1000)
            y = y + self.class_scale * (probabilities @ self.class_embeddings)
        return F.normalize(y, dim=1)

    def mlp(self, x: Tensor) -> Tensor:
        """Linear, (norm,) activation, ..., linear: (N, D) -> (N, dim)."""
        activation = ACTIVATIONS[self.config.activation]
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            x = activation(self.norms[i](x) if self.config.layer_norm else x)
        out: Tensor = self.layers[-1](x)
        return out


def save_head(head: StarterHead, path: Path, backbone: Mapping[str, Tensor] | None = None) -> None:
    """Writes the head as float16 safetensors; statistics of the inputs stay float32, as their range needs it.

    Args:
        head: a trained head.
        path: the file, replaced if it is there.
        backbone: the state dict of a fine-tuned `EfficientNetLite` (BN folded), if the package's own is not used.

    """
    tensors = {
        name: tensor if name.startswith("input_") else tensor.half() for name, tensor in head.state_dict().items()
    }
    tensors |= {BACKBONE_PREFIX + name: tensor.half() for name, tensor in (backbone or {}).items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"config": head.config.to_json()})


Head = StarterHead | MemoryHead
"""Either head; a weights file says which it holds."""


def load_head(path: Path) -> tuple[Head, dict[str, Tensor]]:
    """Reads a weights file: the head in float32, ready for inference, and the fine-tuned backbone's state dict or {}.

    Raises:
        EncoderError: the file is missing, no head, or its tensors do not fit its configuration.

    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("config", "{}")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"cannot read the head's weights {path} ({error}): install unprompt again") from None
    backbone = {n.removeprefix(BACKBONE_PREFIX): tensors.pop(n) for n in list(tensors) if n.startswith(BACKBONE_PREFIX)}
    with torch.device("meta"):
        head: Head = (
            MemoryHead(MemoryConfig.from_json(text))
            if MEMORY_FORMAT in text
            else StarterHead(HeadConfig.from_json(text))
        )
    try:
        head.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"the head's weights {path} do not fit its configuration: {detail}") from None
    if isinstance(head, StarterHead) and not bool((head.input_std > 0).all()):
        raise EncoderError(f"the head's weights {path} hold an input_std that is not above 0: train it again")
    return head.eval().requires_grad_(False), backbone
