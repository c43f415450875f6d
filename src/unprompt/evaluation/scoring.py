"""Metrics of systems' answers, computed once for the same answers, references and code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import EvaluationError
from unprompt.evaluation.bootstrap import PERMUTATIONS, RESAMPLES, bootstrap, compare
from unprompt.evaluation.cache import Memo, code_version, content_key, library_versions
from unprompt.evaluation.items import Item
from unprompt.evaluation.metrics import Metric, Scores, load_metric
from unprompt.evaluation.metrics.scores import Additive
from unprompt.evaluation.systems import Answer
from unprompt.types import Embeddings, Encoder

OFFLINE = (
    "sentence-cosine",
    "bleu-1",
    "bleu-2",
    "bleu-3",
    "bleu-4",
    "bleu-thesis-1",
    "bleu-thesis-4",
    "rouge-l",
    "modifier-jaccard",
    "artist-accuracy",
    "repetition",
    "length",
    "fragment-recall@10",
    "fragment-mrr",
)
"""What is measured when nothing else is said."""

RETRIEVAL = ("recall@1", "recall@10", "mrr", "ndcg@10")
"""Of whole prompts: measured as well where the library may hold the true ones."""

OPTIONAL = ("meteor", "cider", "bertscore")
"""Measured as well where what they need is installed."""

LIBRARIES = (
    "sacrebleu",
    "nltk",
    "rouge-score",
    "pycocoevalcap",
    "bert-score",
    "scipy",
    "numpy",
    "torch",
    "transformers",
)
"""Whose versions decide what metrics say."""

_NEEDS = {"bleu": "sacrebleu", "bleu-thesis": "nltk", "rouge-l": "rouge_score", "cider": "pycocoevalcap",
          "bertscore": "bert_score"}  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """What CLIPScore is measured with.

    Attributes:
        encoder: of pictures and texts.
        pictures: (N, D), the pictures of the evaluation as it embeds them.
        force: measure although it had a hand in an answer.
    """

    encoder: Encoder
    pictures: Embeddings
    force: bool = False


@dataclass(frozen=True, slots=True)
class Statistics:
    """How intervals and p values are drawn; see `unprompt.evaluation.bootstrap`."""

    seed: int = 0
    resamples: int = RESAMPLES
    permutations: int = PERMUTATIONS
    level: float = 0.95


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric of one system, and what stands for all that it was computed from."""

    scores: Scores
    key: str


@dataclass
class Scorer:
    """Scores systems on the same items.

    Args:
        items: N of them.
        memo: keeps results; see `scorer_version` for its version.
        statistics: of intervals and comparisons.
        judge: for metrics of pictures; without one they cannot be measured.
        text: what metrics of texts see of a prompt and of an answer.
    """

    items: Sequence[Item]
    memo: Memo
    statistics: Statistics = field(default_factory=Statistics)
    judge: Judge | None = None
    text: Callable[[str], str] = str

    def __post_init__(self) -> None:
        self.references = [item.prompt for item in self.items]
        self.groups = [item.group for item in self.items]

    def score(self, metric: Metric, answers: Sequence[Answer], composed_by: Collection[str] = ()) -> Scored | None:
        """The scores of N answers; None where a system gives no rankings and the metric is of rankings.

        Raises:
            EvaluationError: a package that the metric needs is missing, or its judge is missing or circular.
        """
        candidates = _candidates(metric, answers)
        if candidates is None:
            return None
        more, facts = self._judged(metric, composed_by)
        references = self.references
        if metric.takes == "texts":
            candidates, references = [*map(self.text, candidates)], [*map(self.text, references)]
        key = content_key(metric.name, facts, candidates, references)
        found = self.memo(["scores", key], lambda: _to_json(metric(candidates, references, **more)))
        return Scored(_from_json(found, metric, candidates, references, more), key)

    def interval(self, scored: Scored, rows: NDArray[np.intp] | None = None) -> list[float]:
        """The value of all items, or of some rows, and the ends of its interval: three numbers, NaN where undefined."""
        chosen = np.arange(len(self.items)) if rows is None else rows
        facts = self.statistics
        drawn = [facts.seed, facts.resamples, facts.level]

        def compute() -> list[float]:
            part = scored.scores.take(chosen)
            groups = np.array(self.groups)[chosen]
            found = bootstrap(part, resamples=facts.resamples, level=facts.level, groups=groups, rng=facts.seed)
            return [found.value, found.low, found.high]

        interval: list[float] = self.memo(["interval", scored.key, chosen.tolist(), drawn, self.groups], compute)
        return interval

    def value(self, scored: Scored, rows: NDArray[np.intp]) -> float:
        """The value of some rows."""
        facts = ["value", scored.key, rows.tolist()]
        return float(self.memo(facts, lambda: scored.scores.take(rows).corpus))

    def compare(self, first: Scored, second: Scored) -> dict[str, float]:
        """The first system's value minus the second's, its interval and p value; see `bootstrap.compare`."""
        facts = self.statistics
        drawn = [facts.seed, facts.resamples, facts.permutations, facts.level]

        def run() -> dict[str, float]:
            found = compare(
                first.scores,
                second.scores,
                resamples=facts.resamples,
                permutations=facts.permutations,
                level=facts.level,
                groups=self.groups,
                rng=facts.seed,
            )
            low, high = found.interval.low, found.interval.high
            return {"difference": found.difference, "low": low, "high": high, "p": found.p}

        result: dict[str, float] = self.memo(["compare", first.key, second.key, drawn, self.groups], run)
        return result

    def _judged(self, metric: Metric, composed_by: Collection[str]) -> tuple[dict[str, Any], Any]:
        """The arguments of a metric of pictures, and the facts that stand for them."""
        if metric.takes != "pictures":
            return {}, None
        if self.judge is None:
            raise EvaluationError(f"{metric.name} needs a judge: name an encoder that composed nothing, with --judge")
        judge = self.judge
        more = {"pictures": judge.pictures, "encoder": judge.encoder, "composed_by": composed_by, "force": judge.force}
        known = sorted({judge.encoder.name, judge.encoder.fingerprint} & set(composed_by))
        return more, [judge.encoder.fingerprint, [item.key for item in self.items], known, judge.force]


def choose_metrics(
    names: Sequence[str], judged: bool = False, findable: bool = False
) -> tuple[list[Metric], dict[str, str]]:
    """The metrics of a list of names, in which "default" stands for all that is there.

    Args:
        names: of metrics, or "default".
        judged: whether there is a judge, so that CLIPScore is measured by default too.
        findable: whether true prompts may be in the library; where they were left out none can be found.

    Returns:
        The metrics, each once, and why those of the default are left out that cannot be measured here.

    Raises:
        EvaluationError: a name is unknown, or what a metric that was named needs is not installed.
    """
    chosen: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    usual = [*OFFLINE, *(RETRIEVAL if findable else ()), *OPTIONAL, *(["clipscore"] if judged else [])]
    for name in names:
        default = name == "default"
        for each in usual if default else [name]:
            metric = load_metric(each)
            lacks = missing(each)
            if lacks is None:
                chosen.setdefault(each, metric)
            elif default:
                left_out[each] = lacks
            else:
                raise EvaluationError(lacks)
    if not chosen:
        raise EvaluationError("no metric is left: name one, such as sentence-cosine")
    return list(chosen.values()), {name: why for name, why in left_out.items() if name not in chosen}


def missing(name: str) -> str | None:
    """What a metric needs and is not installed, in a sentence; None when all is there. Loads as little as it can."""
    base = name.rstrip("0123456789").rstrip("-@")
    if base == "meteor":
        from unprompt.evaluation.metrics.meteor import java_command

        if java_command() is None and find_spec("nltk") is None:
            return "meteor needs Java and pycocoevalcap, or nltk and its WordNet data: install one of the two"
        return None
    module = _NEEDS.get(base)
    if module is None or find_spec(module) is not None:
        return None
    return f"{name} needs {module.replace('_', '-')}: pip install 'unprompt[evaluation]'"


def scorer_version() -> str:
    """What stands for the code of all metrics and the libraries that they call."""
    code = code_version(
        "evaluation.metrics", "evaluation.bootstrap", "evaluation.splits", "pictures", "encoders.minilm"
    )
    return content_key(code, library_versions(LIBRARIES))


def _candidates(metric: Metric, answers: Sequence[Answer]) -> list[Any] | None:
    if metric.takes != "rankings":
        return [answer.text for answer in answers]
    fragments = metric.options.get("ranked") == "fragments"
    rankings = [list(answer.fragments if fragments else answer.prompts) for answer in answers]
    return rankings if any(rankings) else None


def _to_json(scores: Scores) -> dict[str, Any]:
    return {
        "name": scores.name,
        "note": scores.note,
        "corpus": scores.corpus,
        "values": None if scores.values is None else scores.values.tolist(),
        "rows": None if scores.sums is None else scores.sums.rows.tolist(),
    }


def _from_json(
    found: Mapping[str, Any],
    metric: Metric,
    candidates: Sequence[Any],
    references: Sequence[str],
    more: Mapping[str, Any],
) -> Scores:
    values = None if found["values"] is None else np.array(found["values"], dtype=np.float64)
    sums = None
    if found["rows"] is not None:

        def combine(rows: NDArray[np.float64]) -> NDArray[np.float64]:
            # How statistics are combined is code, which is not kept: the metric of a single item tells it.
            fresh = metric(candidates[:1], references[:1], **more).sums
            assert fresh is not None
            return fresh.combine(rows)

        sums = Additive(np.array(found["rows"], dtype=np.float64), combine)
    return Scores(found["name"], values, found["corpus"], found["note"], sums)
