"""The file of the starter's head: safetensors, with its configuration as JSON in the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unprompt.encoders.memory_head import FLOAT32, MemoryConfig, MemoryHead
from unprompt.errors import EncoderError

BACKBONE_PREFIX = "backbone."


def save_head(head: MemoryHead, path: Path, backbone: Mapping[str, Tensor] | None = None) -> None:
    """Writes the head as float16 safetensors, `FLOAT32` apart.

    Args:
        head: a trained head.
        path: the file, replaced if it is there.
        backbone: the state dict of a fine-tuned `EfficientNetLite` (BN folded), if the package's own is not used.

    """
    tensors = {name: tensor if name in FLOAT32 else tensor.half() for name, tensor in head.state_dict().items()}
    tensors |= {BACKBONE_PREFIX + name: tensor.half() for name, tensor in (backbone or {}).items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, path, metadata={"config": head.config.to_json()})


def load_head(path: Path) -> tuple[MemoryHead, dict[str, Tensor]]:
    """Reads a head's file: the head in float32, ready for inference, and the fine-tuned backbone's state dict or {}.

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
        head = MemoryHead(MemoryConfig.from_json(text))
    try:
        head.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"the head's weights {path} do not fit its configuration: {detail}") from None
    return head.eval().requires_grad_(False), backbone
