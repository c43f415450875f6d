"""BERTScore (Zhang et al., 2020) by bert-score: greedy matching of contextual token embeddings, F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from unprompt.evaluation.metrics.scores import (
    EvaluationError,
    Scores,
    check_pairs,
    each_once,
    mean_scores,
    require,
)

OFFLINE, OFFLINE_LAYERS = "all-MiniLM-L6-v2", 5
BATCH = 32
"""Pairs, of which each has two texts, in one forward pass."""

ScorePairs = Callable[[list[tuple[str, str]]], Sequence[float]]


def bertscore(
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    model: str = OFFLINE,
    num_layers: int | None = None,
    device: str = "cpu",
) -> Scores:
    """F1 of each pair without idf weights and without rescaling; an empty candidate or reference gives 0.

    Args:
        candidates: N texts.
        references: N texts, one a candidate.
        model: a Hugging Face name such as "roberta-large", a folder, or `OFFLINE`, whose weights come with the package.
        num_layers: whose output is compared; bert-score's own choice for the model by default, 5 for `OFFLINE`.
        device: where it computes.

    Returns:
        The name holds the model: values of different models do not compare, and none published was made by `OFFLINE`.

    Raises:
        EvaluationError: the lengths differ, bert-score is missing, or the model cannot be loaded.
    """
    check_pairs("bertscore", candidates, references)
    score, layers = _load(model, num_layers, device)
    note = f"F1, {model}, layer {layers}, no idf, not rescaled"
    if model == OFFLINE:
        note += "; not comparable with published figures, which are of larger models"
    return mean_scores(f"bertscore ({model})", each_once(candidates, references, score), note)


@lru_cache(maxsize=1)
def _load(model: str, num_layers: int | None, device: str) -> tuple[ScorePairs, int]:
    """A function that scores pairs, and the layer that it compares."""
    from unprompt.encoders.minilm import weights_folder
    from unprompt.encoders.parallel import map_side_by_side
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()  # transformers imports it
    library = require("bertscore", "bert_score", "bert-score")
    path = str(weights_folder()) if model == OFFLINE else model
    layers = OFFLINE_LAYERS if model == OFFLINE and num_layers is None else num_layers
    try:
        scorer: Any = library.BERTScorer(model_type=path, num_layers=layers, device=device)
    except KeyError:
        raise EvaluationError(f"bert-score knows no best layer of {model!r}: give num_layers") from None
    except (OSError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise EvaluationError(f"bertscore cannot load {model!r} ({reason}): give a folder, or {OFFLINE}") from None

    # On one core, whatever the number of threads: they would decide the last digits.
    return lambda pairs: map_side_by_side(lambda all_pairs: _f1(scorer, all_pairs), [pairs])[0], int(scorer.num_layers)


def _f1(scorer: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """F1 of each pair, those of like length together.

    bert-score fills its batches in the order of a set, which differs from run to run, so it gets one batch at a time.
    """
    order = sorted(range(len(pairs)), key=lambda i: (max(map(len, pairs[i])), pairs[i]))
    values = [0.0] * len(pairs)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        said, meant = ([pairs[i][side] for i in batch] for side in (0, 1))
        for i, value in zip(batch, scorer.score(said, meant, batch_size=2 * BATCH)[2].tolist(), strict=True):
            values[i] = value
    return values
