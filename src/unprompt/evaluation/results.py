"""An evaluation as JSON's types: what ``results.json`` holds and every table is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unprompt.evaluation.metrics import Metric
from unprompt.evaluation.run import Evaluation
from unprompt.evaluation.systems import Answer

FORMAT = "unprompt-evaluation/1"

Results = dict[str, Any]


def to_results(evaluation: Evaluation, facts: Mapping[str, Any]) -> Results:
    """All figures of an evaluation.

    Args:
        evaluation: see there.
        facts: about the run: command, seed, library, split, versions; they stand first.

    Returns:
        The keys format, those of `facts`, pictures, groups, primary, metrics, systems and comparisons. Figures that
        are not defined are None. All but a system's cost is the same whenever the same is evaluated.
    """
    statistics = evaluation.scorer.statistics
    results = {
        "format": FORMAT,
        **facts,
        "statistics": {
            "seed": statistics.seed,
            "resamples": statistics.resamples,
            "permutations": statistics.permutations,
            "level": statistics.level,
            "resampled": "groups of prompts of the same words",
        },
        "pictures": len(evaluation.items),
        "groups": len(set(evaluation.scorer.groups)),
        "primary": evaluation.primary,
        "metrics": {metric.name: _metric(evaluation, metric) for metric in evaluation.metrics},
        "systems": {name: _system(evaluation, name) for name in evaluation.systems},
        "comparisons": [each for metric in evaluation.metrics for each in _comparisons(evaluation, metric)],
    }
    evaluation.scorer.memo.flush()
    return results


def _metric(evaluation: Evaluation, metric: Metric) -> dict[str, Any]:
    named = [found[metric.name].scores for found in evaluation.scored.values() if metric.name in found]
    return {
        "title": named[0].name if named else metric.name,
        "note": _note([each.note for each in named]),
        "lower_is_better": metric.lower_is_better,
        "best": evaluation.best(metric),
    }


def _note(notes: Sequence[str]) -> str:
    """What the notes of all systems say alike."""
    if not notes:
        return "no system gives what it needs"
    clauses = [note.split("; ") for note in notes]
    return "; ".join(clause for clause in clauses[0] if all(clause in others for others in clauses))


def _system(evaluation: Evaluation, name: str) -> dict[str, Any]:
    scorer, scored = evaluation.scorer, evaluation.scored[name]
    metrics = {}
    for metric, found in scored.items():
        value, low, high = scorer.interval(found)
        metrics[metric] = {"value": number(value), "low": number(low), "high": number(high)}
    answers = evaluation.answers[name]
    return {
        "metrics": metrics,
        "distinct": len({answer.text for answer in answers}),
        "empty": sum(not answer.text.strip() for answer in answers),
        "cost": _cost(answers),
        "by_source": _parts(evaluation, name, evaluation.by_source),
        "by_length": _parts(evaluation, name, evaluation.by_length),
    }


def _parts(evaluation: Evaluation, name: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Each part's size and values; the primary metric with its interval."""
    scorer, scored = evaluation.scorer, evaluation.scored[name]
    described = {}
    for part, rows in parts.items():
        values: dict[str, Any] = {metric: number(scorer.value(found, rows)) for metric, found in scored.items()}
        interval = scorer.interval(scored[evaluation.primary], rows) if evaluation.primary in scored else [np.nan] * 3
        low, high = (number(each) for each in interval[1:])
        described[part] = {"pictures": len(rows), "metrics": values, "low": low, "high": high}
    return described


def _cost(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "texts_encoded_per_picture": number(float(np.mean([answer.texts for answer in answers]))),
        "seconds_per_picture": number(float(np.mean([answer.seconds for answer in answers]))),
        "peak_memory_mb": round(max(answer.memory for answer in answers) / 1e6),
    }


def _comparisons(evaluation: Evaluation, metric: Metric) -> list[dict[str, Any]]:
    """The best system against each other one."""
    best = evaluation.best(metric)
    if best is None:
        return []
    found = []
    for name in evaluation.systems:
        if name != best and metric.name in evaluation.scored[name]:
            pair = (evaluation.scored[each][metric.name] for each in (best, name))
            result = {key: number(value) for key, value in evaluation.scorer.compare(*pair).items()}
            found.append({"metric": metric.name, "best": best, "other": name, **result})
    return found


def number(value: float) -> float | None:
    """A figure with ten significant digits, beyond which rounding errors lie; None for NaN."""
    return None if np.isnan(value) else float(f"{value:.10g}")
