"""Lets a CUDA-built torchvision be imported beside a CPU-only torch, which open_clip, timm and transformers need."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from unprompt.errors import EncoderError

logger = logging.getLogger(__name__)

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# A Library takes its definitions with it when it is collected, so it lives as long as the process.
_library: Any = None


def ensure_torchvision() -> None:
    """Imports torchvision, repairing the one known breakage first; does nothing where it works or is not installed.

    torchvision's registry wheel is built against CUDA. Beside a CPU-only torch its compiled operators cannot be
    loaded, and its import then fails because Python code registers kernels for operators nobody defined. Only
    detection models call those operators, so giving them a schema is enough for everything else, the transforms
    included.

    Raises:
        EncoderError: torchvision cannot be imported for another reason.

    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            reason = " ".join(str(error).split())
            raise EncoderError(
                f"torchvision cannot be imported ({reason}): install the one made for this torch"
            ) from error
        logger.debug("torchvision does not match this torch: defining the operators it misses")
        _forget_torchvision()
        _define_operators()
        importlib.import_module("torchvision")


def _forget_torchvision() -> None:
    """A failed import leaves submodules behind, which a second import would take as they are."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]


def _define_operators() -> None:
    global _library
    if _library is not None:
        return
    import torch

    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        _library.define(schema)
