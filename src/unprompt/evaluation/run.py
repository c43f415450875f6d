"""The evaluation itself: every system answers every picture, every metric scores every system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import EvaluationError
from unprompt.evaluation.cache import Memo, RecordStore, content_key
from unprompt.evaluation.items import Item
from unprompt.evaluation.metrics import Metric
from unprompt.evaluation.scoring import Judge, Scored, Scorer, Statistics, scorer_version
from unprompt.evaluation.systems import Answer, Progress, System, answer_all

LENGTHS = (1, 4, 8, 16, 32, 64)
"""Words of the true prompt at which the bins of the breakdown by length begin."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What every system said, and what every metric says of it.

    Attributes:
        items: N pictures and their prompts.
        metrics: in the order of the table's columns; the first is the one that systems are ranked by.
        answers: system -> N answers, in the order of the items.
        scored: system -> metric -> scores; a metric that says nothing of a system is not there.
        scorer: computes intervals and comparisons.
    """

    items: Sequence[Item]
    metrics: Sequence[Metric]
    answers: Mapping[str, Sequence[Answer]]
    scored: Mapping[str, Mapping[str, Scored]]
    scorer: Scorer = field(repr=False)

    @property
    def systems(self) -> list[str]:
        """The names of the systems, in the order they were asked for."""
        return list(self.answers)

    @property
    def primary(self) -> str:
        """The metric that systems are ranked by."""
        return self.metrics[0].name

    def best(self, metric: Metric) -> str | None:
        """The system that a metric likes best, the first of equal ones; None where neither more nor less is better."""
        if metric.lower_is_better is None:
            return None
        sign = -1.0 if metric.lower_is_better else 1.0
        values = {
            name: sign * found[metric.name].scores.corpus
            for name, found in self.scored.items()
            if metric.name in found and not np.isnan(found[metric.name].scores.corpus)
        }
        return max(values, key=values.__getitem__) if values else None

    @cached_property
    def by_source(self) -> dict[str, NDArray[np.intp]]:
        """Source -> its rows, by name."""
        return _rows([item.source for item in self.items])

    @cached_property
    def by_length(self) -> dict[str, NDArray[np.intp]]:
        """Words of the true prompt, such as "4-7" -> its rows, short ones first."""
        words = np.array([len(item.prompt.split()) for item in self.items])
        bins = np.searchsorted(LENGTHS, words, side="right") - 1
        found = _rows([f"{place:02d}" for place in bins.tolist()])
        return {_length_name(int(place)): rows for place, rows in found.items()}


def evaluate(
    items: Sequence[Item],
    systems: Sequence[System],
    metrics: Sequence[Metric],
    cache: Path,
    statistics: Statistics | None = None,
    judge: Judge | None = None,
    progress: Progress = lambda what, done, total: None,
    text: Callable[[str], str] = str,
) -> Evaluation:
    """Lets systems answer pictures, and scores their answers.

    Args:
        items: 1 or more.
        systems: with names of their own.
        metrics: 1 or more; the first ranks the systems.
        cache: the folder in which answers and values are kept; it may be that of other evaluations too.
        statistics: of intervals and comparisons.
        judge: for metrics of pictures.
        progress: see `Progress`.
        text: what metrics of texts see of a prompt and of an answer.

    Raises:
        EvaluationError: there is nothing to evaluate, two systems have one name, or a metric cannot be measured.
    """
    names = [system.name for system in systems]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise EvaluationError(f"two systems are called {twice!r}: give one of them another name, as NAME=SYSTEM")
    if not (items and systems and metrics):
        raise EvaluationError("nothing to evaluate: give pictures, systems and metrics, one of each at least")
    _check_judge(systems, metrics, judge)
    store = RecordStore(cache / "values" / content_key([[item.key, item.prompt] for item in items]))
    scorer = Scorer(items, Memo(store, scorer_version()), statistics or Statistics(), judge, text)
    answers, scored = {}, {}
    for system in systems:
        answers[system.name] = answer_all(
            system, items, RecordStore(cache / "answers" / system.fingerprint[:32]), progress
        )
    for done, system in enumerate(systems):
        progress("metrics", done, len(systems))
        found = {each.name: scorer.score(each, answers[system.name], system.encoders) for each in metrics}
        scored[system.name] = {name: each for name, each in found.items() if each is not None}
        scorer.memo.flush()
    progress("metrics", len(systems), len(systems))
    return Evaluation(items, metrics, answers, scored, scorer)


def _check_judge(systems: Sequence[System], metrics: Sequence[Metric], judge: Judge | None) -> None:
    """Refuses before anything is computed what `clipscore` would refuse after."""
    for metric in metrics:
        if metric.takes != "pictures":
            continue
        if judge is None:
            raise EvaluationError(f"{metric.name} needs a judge: name an encoder that composed nothing, with --judge")
        known = {judge.encoder.name, judge.encoder.fingerprint}
        circular = next((system.name for system in systems if known & system.encoders), None)
        if circular is not None and not judge.force:
            raise EvaluationError(
                f"{metric.name} by {judge.encoder.name!r} is circular, that encoder composed the prompts of "
                f"{circular}: name another judge, or force it"
            )


def _rows(labels: Sequence[Any]) -> dict[Any, NDArray[np.intp]]:
    array = np.array(labels, dtype=object)
    return {label: np.flatnonzero(array == label) for label in sorted(set(labels))}


def _length_name(place: int) -> str:
    if place + 1 == len(LENGTHS):
        return f"{LENGTHS[place]} and more"
    return f"{LENGTHS[place]}-{LENGTHS[place + 1] - 1}"
