"""A whole evaluation by names: which systems, on which pictures, by which metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unprompt.encoders import load_encoder
from unprompt.encoders.registry import check_device
from unprompt.errors import EvaluationError
from unprompt.evaluation.cache import library_versions
from unprompt.evaluation.items import Item, Selected, Selection, select_items
from unprompt.evaluation.presets import Preset
from unprompt.evaluation.results import Results, to_results
from unprompt.evaluation.run import Evaluation, evaluate
from unprompt.evaluation.scoring import Judge, Statistics, choose_metrics
from unprompt.evaluation.systems import Progress, System
from unprompt.index.files import cache_folder
from unprompt.index.library import Library
from unprompt.systems.pictures import PictureEncoder
from unprompt.systems.registry import make_systems
from unprompt.systems.workshop import Workshop, encodings_folder
from unprompt.types import Entry, Skipped

PROGRAMS = ("unprompt", "numpy", "torch", "transformers", "faiss-cpu", "faiss-gpu", "pillow", "sacrebleu", "nltk",
            "rouge-score", "pycocoevalcap", "bert-score", "scipy")  # fmt: skip
"""Whose versions a report names."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    Attributes:
        systems: names, see `make_systems`.
        metrics: names, see `choose_metrics`; the first ranks the systems.
        selection: which pictures.
        statistics: of intervals and tests.
        judge: the encoder that measures clipscore, None for none.
        force_circular: let it judge what it composed.
        cases: the system whose best and worst cases are shown; None for the best one.
        device: where networks run.
        preset: the protocol whose texts metrics see, None for texts as they are.
    """

    systems: Sequence[str]
    metrics: Sequence[str] = ("default",)
    selection: Selection = field(default_factory=Selection)
    statistics: Statistics = field(default_factory=Statistics)
    judge: str | None = None
    force_circular: bool = False
    cases: str | None = None
    device: str = "cpu"
    preset: Preset | None = None


class Outcome(NamedTuple):
    """An evaluation, and all its figures as JSON: see `to_results`."""

    evaluation: Evaluation
    results: Results


def evaluate_library(
    library: Library,
    sources: Mapping[str, Iterable[Entry | Skipped]],
    plan: Plan,
    cache: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Evaluates systems on a library.

    Args:
        library: what they search in.
        sources: pictures and their true prompts, by name.
        plan: see there.
        cache: where encodings, answers and values are kept; by default in the user's cache folder.
        facts: about the run, which the results repeat, such as the command.
        progress: see `Progress`.

    Raises:
        EvaluationError: a name is unknown, nothing is left to evaluate, or a metric cannot be measured.
        EncoderError: an encoder or a captioner's weights cannot be had.
    """
    cache = cache or cache_folder() / "evaluation"
    metrics, left_out = choose_metrics(plan.metrics, plan.judge is not None, plan.selection.keep != "none")
    check_device(plan.device)
    workshop = Workshop(library, cache, plan.device)
    systems = _make(plan, workshop)
    selected, items = _read(sources, plan, workshop, progress)
    judge = _judge(plan, items, cache, progress)
    text = str if plan.preset is None else plan.preset.normalise
    evaluation = evaluate(items, systems, metrics, cache, plan.statistics, judge, progress, text)
    about = {
        **(facts or {}),
        "seed": plan.statistics.seed,
        "library": _facts_of(library, workshop.fingerprint),
        "split": _split(sources, plan.selection, selected, len(items)),
        "leaks": selected.leaks,
        "fingerprints": {system.name: system.fingerprint for system in systems},
        "encodings": workshop.encodings(),
        "left_out": left_out,
        "versions": library_versions(PROGRAMS),
    }
    return Outcome(evaluation, to_results(evaluation, about))


def _make(plan: Plan, workshop: Workshop) -> list[System]:
    """The systems of a plan, and the check that its cases are of one of them."""
    systems = make_systems(plan.systems, workshop)
    names = [system.name for system in systems]
    if plan.cases is not None and plan.cases not in names:
        raise EvaluationError(f"no cases of {plan.cases!r} can be shown: name one of {', '.join(names)}")
    return systems


def _read(
    sources: Mapping[str, Iterable[Entry | Skipped]], plan: Plan, workshop: Workshop, progress: Progress
) -> tuple[Selected, list[Item]]:
    """What was selected, and those of its pictures that can be decoded."""
    selected = select_items(sources, plan.selection, workshop.library, progress)
    items = workshop.embeddings.readable(selected.items, progress)
    if not items:
        raise EvaluationError(f"none of {len(selected.items)} pictures can be decoded: check the files")
    return selected, items


def _judge(plan: Plan, items: Sequence[Item], cache: Path, progress: Progress) -> Judge | None:
    if plan.judge is None:
        return None
    encoder = load_encoder(plan.judge, device=plan.device)
    pictures = PictureEncoder(encoder.fingerprint, lambda: encoder, encodings_folder(cache, plan.device))
    pictures.readable(items, progress)
    return Judge(encoder, pictures(items), plan.force_circular)


def _facts_of(library: Library, fingerprint: str) -> dict[str, Any]:
    made_by = library.manifest.encoder
    return {
        "path": str(library.path),
        "fingerprint": fingerprint,
        "encoder": made_by.name,
        "encoder_fingerprint": made_by.fingerprint,
        **library.manifest.counts,
    }


def _split(sources: Iterable[str], selection: Selection, selected: Selected, decoded: int) -> dict[str, Any]:
    undecodable = len(selected.items) - decoded
    skipped = {**selected.skipped, **({"undecodable": undecodable} if undecodable else {})}
    counts = {**selected.counts, "decoded": decoded}
    return {"sources": list(sources), "selection": asdict(selection), "counts": counts, "skipped": skipped}
