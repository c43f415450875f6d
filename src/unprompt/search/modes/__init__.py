"""Ways to compose the final prompt of a picture: the registry of modes, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unprompt.search.modes.best import compose_best
from unprompt.search.modes.classic import compose_classic
from unprompt.search.modes.common import ComposeInput
from unprompt.search.modes.default import compose_default
from unprompt.search.modes.fast import compose_fast
from unprompt.search.modes.negative import compose_negative
from unprompt.types import Candidate

Mode = Callable[[ComposeInput], list[Candidate]]

MODES: Mapping[str, Mode] = {
    "default": compose_default,
    "fast": compose_fast,
    "classic": compose_classic,
    "best": compose_best,
    "negative": compose_negative,
}
"""How a final prompt may be composed, by name. Each gives one candidate a picture, empty where nothing is there."""

__all__ = ["MODES", "ComposeInput", "Mode"]
