"""Metrics, one a file, by name: ``load_metric("bleu-4")(candidates, references)`` gives `Scores`."""

from __future__ import annotations

from unprompt.evaluation.metrics.registry import METRICS, Metric, load_metric
from unprompt.evaluation.metrics.scores import EvaluationError, Scores

__all__ = ["METRICS", "EvaluationError", "Metric", "Scores", "load_metric"]
