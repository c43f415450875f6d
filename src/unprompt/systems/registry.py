"""Systems by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unprompt.captioners.registry import OTHERS, packaged
from unprompt.errors import EvaluationError
from unprompt.evaluation.systems import System
from unprompt.systems.captions import USUAL, CaptionSystem
from unprompt.systems.engines import ENGINES, EngineSystem
from unprompt.systems.retrieval import RETRIEVAL, RetrievalSystem
from unprompt.systems.workshop import Workshop

NEIGHBOURS = "+neighbours"


def make_systems(names: Sequence[str], workshop: Workshop) -> list[System]:
    """Makes systems by name: "neighbours", "engine", "lstm+neighbours", "ofa:FOLDER", "mine=runs/lstm".

    Args:
        names: each one of `known_systems`, a captioner's checkpoint folder, "ofa:NAME" or "blip:NAME"; captioners may
            have "+neighbours" behind them, and anything "LABEL=" before it, which tables then call it.
        workshop: what they share.

    Raises:
        EvaluationError: a name is unknown, or stands twice.
        EncoderError: a captioner's weights would have to be fetched and cannot be.
    """
    systems = [_make(name, workshop) for name in names]
    for place, system in enumerate(systems):
        if any(system.name == other.name for other in systems[:place]):
            raise EvaluationError(f"two systems are called {system.name!r}: name one of them otherwise, LABEL=SYSTEM")
    if not systems:
        raise EvaluationError(f"no system to evaluate: name some of {', '.join(known_systems())}")
    return systems


def known_systems() -> list[str]:
    """Names that `make_systems` takes, besides folders and names of captioners that are not trained here."""
    return [*RETRIEVAL, *ENGINES, *packaged(), *USUAL]


def _make(name: str, workshop: Workshop) -> System:
    label, _, spec = name.rpartition("=")
    captioner = spec.removesuffix(NEIGHBOURS)
    if spec in RETRIEVAL:
        system: System = RetrievalSystem(spec, workshop)
    elif spec in ENGINES:
        system = EngineSystem(spec, ENGINES[spec], workshop)
    elif captioner in (*packaged(), *USUAL) or captioner.partition(":")[0] in OTHERS:
        system = CaptionSystem(spec, captioner, captioner != spec, workshop)
    elif Path(captioner).expanduser().is_dir():
        shown = Path(captioner).expanduser().resolve().name + spec.removeprefix(captioner)
        system = CaptionSystem(shown, captioner, captioner != spec, workshop)
    else:
        raise EvaluationError(
            f"unknown system {spec!r}: use {', '.join(known_systems())}, a captioner's folder, ofa:NAME or blip:NAME; "
            f"captioners may have {NEIGHBOURS} behind them"
        )
    if label:
        system.name = label
    return system
