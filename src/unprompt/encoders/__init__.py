"""Encoders: they map pictures and texts into one space. Importing this package imports no torch."""

from __future__ import annotations

from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.registry import ENCODERS, load_encoder

__all__ = ["ENCODERS", "Preprocessing", "load_encoder"]
