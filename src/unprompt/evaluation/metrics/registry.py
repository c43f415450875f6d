"""Metrics by name: "sentence-cosine", "bleu-4", "recall@10"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from unprompt.evaluation.metrics.scores import EvaluationError, Scores

Takes = Literal["texts", "rankings", "pictures"]
_NUMBER = re.compile(r"(.+)[@-](\d+)")
_HERE = "unprompt.evaluation.metrics"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric before its number is known.

    Attributes:
        function: "module:function" of this package, imported on use.
        takes: "texts" (candidates are prompts), "rankings" (each is a list, best first), or "pictures" (prompts, and
            the keyword arguments ``pictures`` and ``encoder``).
        number: the argument that the number in a name gives, "" where a name has none.
        sign: what stands before the number.
        lower_is_better: whether it is an error or a fault that is counted; None where neither is better.
        fixed: arguments that belong to the name.
    """

    function: str
    takes: Takes = "texts"
    number: str = ""
    sign: str = "-"
    lower_is_better: bool | None = False
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, ready to be called; see `Family` for the attributes that it shares."""

    name: str
    takes: Takes
    lower_is_better: bool | None
    function: str
    options: Mapping[str, Any]

    def __call__(self, candidates: Sequence[Any], references: Sequence[str], **more: Any) -> Scores:
        """Scores N candidates against N references; `more` goes to the metric's function."""
        module, name = self.function.split(":")
        scores: Scores = getattr(import_module(f"{_HERE}.{module}"), name)(
            candidates, references, **{**self.options, **more}
        )
        return scores


_FRAGMENTS = {"ranked": "fragments"}

METRICS: dict[str, Family] = {
    "sentence-cosine": Family("sentence_cosine:sentence_cosine"),
    "bleu": Family("bleu:bleu", number="order"),
    "bleu-thesis": Family("bleu_thesis:bleu_thesis", number="order"),
    "meteor": Family("meteor:meteor"),
    "meteor-java": Family("meteor:meteor_java"),
    "meteor-nltk": Family("meteor:meteor_nltk"),
    "bertscore": Family("bertscore:bertscore"),
    "rouge-l": Family("rouge:rouge_l"),
    "cider": Family("cider:cider"),
    "clipscore": Family("clipscore:clipscore", takes="pictures"),
    "modifier-jaccard": Family("modifier_jaccard:modifier_jaccard"),
    "artist-accuracy": Family("artist_accuracy:artist_accuracy"),
    "recall": Family("recall:recall", "rankings", "k", "@"),
    "mrr": Family("mrr:mrr", "rankings"),
    "ndcg": Family("ndcg:ndcg", "rankings", "k", "@"),
    "fragment-recall": Family("recall:recall", "rankings", "k", "@", fixed=_FRAGMENTS),
    "fragment-mrr": Family("mrr:mrr", "rankings", fixed=_FRAGMENTS),
    "fragment-ndcg": Family("ndcg:ndcg", "rankings", "k", "@", fixed=_FRAGMENTS),
    "repetition": Family("repetition:repetition", number="n", lower_is_better=True),
    "length": Family("length:length", lower_is_better=None),
}
"""Name without its number -> metric. A number may be left out where the function has a default: "bleu" is "bleu-4"."""


def load_metric(name: str) -> Metric:
    """Finds a metric by name, such as "bleu-4", "recall@10" or "fragment-ndcg@5".

    Nothing is imported before the metric is called.

    Raises:
        EvaluationError: there is none of this name.
    """
    matched = None if name in METRICS else _NUMBER.fullmatch(name)
    base = matched[1] if matched else name
    family = METRICS.get(base)
    if family is None or (matched and f"{base}{family.sign}{matched[2]}" != name) or (matched and not family.number):
        raise EvaluationError(_unknown(name))
    number = {family.number: int(matched[2])} if matched else {}
    return Metric(name, family.takes, family.lower_is_better, family.function, {**family.fixed, **number})


def _unknown(name: str) -> str:
    known = [f"{base}{family.sign}N" if family.number else base for base, family in METRICS.items()]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown metric {name!r}{meant}: use one of {', '.join(known)}"
