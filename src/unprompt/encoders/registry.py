"""Encoders by name: a dict from the part before the colon to the function that loads the rest."""

from __future__ import annotations

from importlib import import_module

from unprompt.errors import EncoderError
from unprompt.types import Encoder

ENCODERS: dict[str, str] = {
    "starter": "unprompt.encoders.starter:load",
    "open_clip": "unprompt.encoders.open_clip:load",
    "transformers": "unprompt.encoders.transformers:load",
}
"""Prefix -> "module:function", imported on use and called as ``load(rest_of_the_name, device)``."""

KNOWN_FORMS = ("starter", "open_clip:MODEL/TAG", "transformers:NAME_OR_FOLDER")


def load_encoder(name: str = "starter", *, device: str = "cpu") -> Encoder:
    """Loads an encoder by its name.

    Args:
        name: "starter", "open_clip:ViT-H-14/laion2b_s32b_b79k", "transformers:NAME_OR_FOLDER".
        device: "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        EncoderError: the name is unknown, the device is not there, or the encoder's own weights or extra are missing.

    """
    prefix, colon, rest = name.partition(":")
    needs_rest = prefix != "starter"
    if prefix not in ENCODERS or needs_rest != bool(rest) or (colon and not needs_rest):
        raise EncoderError(f"unknown encoder {name!r}: use one of {', '.join(KNOWN_FORMS)}")
    check_device(device)
    module, function = ENCODERS[prefix].split(":")
    encoder: Encoder = getattr(import_module(module), function)(rest, device)
    return encoder


def check_device(device: str) -> None:
    """Checks that torch can compute on ``device``.

    Raises:
        EncoderError: it is no device of torch's, or none of its kind is there.

    """
    if device == "cpu":
        return
    import torch

    kind, _, number = device.partition(":")
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in counts or (number and not number.isdigit()):
        raise EncoderError(f"unknown device {device!r}: use one of cpu, cuda, cuda:N, mps")
    if int(number or 0) >= counts[kind]:
        raise EncoderError(f"device {device!r} is not available ({counts[kind]} {kind} found): use --device cpu")
