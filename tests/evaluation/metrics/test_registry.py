from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from unprompt.evaluation.metrics import METRICS, EvaluationError, load_metric
from unprompt.evaluation.metrics.scores import mean_scores

HERE = "unprompt.evaluation.metrics"


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_is_a_documented_function_of_candidates_and_references(name: str) -> None:
    family = METRICS[name]
    module, function = family.function.split(":")
    found = getattr(import_module(f"{HERE}.{module}"), function)
    parameters = list(inspect.signature(found).parameters)
    assert parameters[1] == "references"
    assert {*family.fixed, *filter(None, [family.number])} <= set(parameters)
    assert "EvaluationError" in found.__doc__
    assert (family.takes == "pictures") == ("pictures" in parameters)
    assert (family.takes == "rankings") == (parameters[0] == "rankings")


def test_numbers_in_names() -> None:
    assert load_metric("bleu-3").options == {"order": 3}
    assert load_metric("bleu-thesis-1").options == {"order": 1}
    assert load_metric("bleu").options == {}
    assert load_metric("repetition-4").options == {"n": 4}
    metric = load_metric("fragment-recall@20")
    assert metric.options == {"ranked": "fragments", "k": 20}
    assert metric.takes == "rankings"
    scores = metric([["8k"]], ["a dog, 8k"])
    assert scores.name == metric.name == "fragment-recall@20"
    assert scores.corpus == 0.5


@pytest.mark.parametrize(
    "name", ["", "blue-4", "bleu@4", "bleu-", "recall-10", "recall@", "mrr@3", "rouge-l-2", "bleu-x"]
)
def test_unknown_names_are_one_line(name: str) -> None:
    with pytest.raises(EvaluationError, match=r"unknown metric .*use one of sentence-cosine, bleu-N") as caught:
        load_metric(name)
    assert "\n" not in str(caught.value)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(EvaluationError, match=r"did you mean sentence-cosine\?"):
        load_metric("sentence-cosin")


def test_which_way_is_better() -> None:
    assert load_metric("repetition-2").lower_is_better is True
    assert load_metric("length").lower_is_better is None
    assert load_metric("mrr").lower_is_better is False


def test_importing_is_light() -> None:
    modules = " ".join(f"{HERE}.{family.function.split(':')[0]}" for family in METRICS.values())
    code = (
        f"import sys, importlib; import unprompt.evaluation.splits, unprompt.evaluation.leaks; "
        f"import unprompt.evaluation.bootstrap; [importlib.import_module(m) for m in {modules.split()!r}]; "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "faiss", "pyarrow", "transformers", "scipy", "nltk", "sacrebleu", "bert_score", "matplotlib"}
    assert not set(done.stdout.split()) & heavy


def test_items_without_a_verdict_are_left_out_of_means() -> None:
    scores = mean_scores("x", [1, np.nan, 0, 1])
    assert scores.corpus == pytest.approx(2 / 3)
    assert len(scores) == 4
    assert scores.take([1, 2]).corpus == 0
    assert scores.take([True, True, False, False]).corpus == 1
    assert np.isnan(scores.take([1]).corpus)
