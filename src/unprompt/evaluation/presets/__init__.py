"""Protocols of published evaluations as data, so that others can be run by the same rules: see `load_preset`.

A preset runs on parts of DiffusionDB that the user has. What can be run offline is a small fixture in the same format,
made of other pictures and marked as such; see `presets.fixture`.
"""

from __future__ import annotations

import difflib

from unprompt.errors import EvaluationError
from unprompt.evaluation.presets.nyu import NYU_2023
from unprompt.evaluation.presets.preset import Filters, Preset, Published
from unprompt.evaluation.presets.thesis import THESIS_2023

__all__ = ["PRESETS", "Filters", "Preset", "Published", "load_preset"]

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (THESIS_2023, NYU_2023)}
"""Every protocol by its name."""


def load_preset(name: str) -> Preset:
    """The protocol of this name, such as "thesis-2023".

    Raises:
        EvaluationError: there is none.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise EvaluationError(f"unknown preset {name!r}{meant}: use one of {', '.join(PRESETS)}")
    return PRESETS[name]
