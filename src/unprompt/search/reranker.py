"""The second stage: a small learnt model orders the candidates of a picture by how near they should be to its prompt.

Its strongest features say how much a candidate agrees with the others, which is minimum-Bayes-risk decoding (Kumar and
Byrne, NAACL 2004) with the cosine of text embeddings as gain: the prompt to answer with is not the likeliest one but
the one nearest to all that are likely. How much each kind of evidence weighs depends on the picture: neighbours that
are far, or disagree with the prompts near the picture, count less.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.errors import EncoderError
from unprompt.search.candidates import in_prompt_index, is_caption, neighbour_of
from unprompt.search.fuse import reciprocal_rank_fusion
from unprompt.search.results import Neighbour
from unprompt.search.rounds import EncodeTexts
from unprompt.types import Candidate, Embeddings

WEIGHTS = Path(__file__).parent / "weights" / "reranker.json"
FORMAT = "unprompt-reranker/1"
OTHER = "other"
"""The model for encoders that none was trained for."""

SHARPNESS = 20.0
"""What is 0.05 less similar to the picture has 1/e of the say, as in `unprompt.search.subject`."""

CAPTION_SHARPNESS = 2.0
"""The same for captions, whose scores are mean log-probabilities."""

GAP_RANK = 10
SPREAD = 1e-3
LIMIT = 2.0
"""Standard deviations at which what is known of a picture is cut, so that a strange one is not extrapolated to."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of one picture's N candidates.

    Attributes:
        features: name -> (N,), of the candidates; see `read_signals`.
        context: name -> of the picture, all but the last differences, which move less with the encoder:
            "gap", how much nearer the nearest neighbour is than the tenth; "text_gain", how much nearer the mean of the
            prompts near it is than the nearest neighbour; "text_lead", the same beside the neighbours' mean prompt;
            "agree", the product of both means; "qcap", the cosine with the mean caption, 0 without one.
    """

    features: Mapping[str, Vector]
    context: Mapping[str, float]


def read_signals(
    query: Vector, candidates: Sequence[Candidate], embeddings: Vector, neighbours: Sequence[Neighbour]
) -> Signals:
    """Computes the signals of one picture.

    "cos" is a candidate's cosine with the picture, "con_nb", "con_near", "con_cap" and "con_all" its agreement with the
    neighbours' prompts, the prompt index's, the captions and all candidates, "rrf" its fused rank, "nbgap" how much
    further its picture is than the nearest, "length" the logarithm of its words; the others are flags.

    Args:
        query: (D,), of norm 1.
        candidates: N of them, 1 or more.
        embeddings: (N, D), their texts'.
        neighbours: of the picture.
    """
    cos = embeddings @ query
    near = np.array([in_prompt_index(each) for each in candidates])
    captioned = np.array([is_caption(each) for each in candidates])
    neighbour = _neighbour_cosines(candidates, neighbours)
    held = ~np.isnan(neighbour)
    caption_scores = np.minimum([each.score for each in candidates], 0.0)
    means = {
        "con_nb": _mean_text(embeddings, neighbour, held, SHARPNESS),
        "con_near": _mean_text(embeddings, cos, near, SHARPNESS),
        "con_cap": _mean_text(embeddings, caption_scores, captioned, CAPTION_SHARPNESS),
        "con_all": embeddings.mean(axis=0),
    }
    best = float(neighbour[held].max()) if held.any() else 0.0
    length = np.log1p([len(re.findall(r"\w+", each.prompt)) for each in candidates])
    features = {
        "cos": cos,
        **{name: embeddings @ mean for name, mean in means.items()},
        "nbgap": np.where(held, neighbour - best, 0.0),
        "rrf": _fused(neighbour, held, cos, near),
        "iscap": captioned.astype(np.float64),
        "composed": np.array([float(len(each.parts) > 1) for each in candidates]),
        "length": length,
        "length2": length**2,
    }
    text = _cosine(query, means["con_near"])
    context = {
        "gap": best - float(np.sort(neighbour[held])[-GAP_RANK:][0]) if held.any() else 0.0,
        "text_gain": text - best,
        "text_lead": text - _cosine(query, means["con_nb"]),
        "agree": float(means["con_nb"] @ means["con_near"]),
        "qcap": _cosine(query, means["con_cap"]),
    }
    return Signals(features, context)


@dataclass(frozen=True)
class Model:
    """A linear model of centred features, some of them also multiplied by what is known of the picture.

    Attributes:
        features: names of those that count by themselves.
        gated: names of those that are multiplied by each context.
        contexts: name -> (mean, standard deviation) over the training pictures.
        scaled: whether a picture's features are divided by their spread, so that encoders with other spreads fit.
        weights: (F + G * C,): of the features, then of the gated ones, context by context.
    """

    features: tuple[str, ...]
    gated: tuple[str, ...]
    contexts: Mapping[str, tuple[float, float]]
    scaled: bool
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        wanted = len(self.features) + len(self.gated) * len(self.contexts)
        if self.weights and len(self.weights) != wanted:
            raise ValueError(f"a model of {wanted} terms came with {len(self.weights)} weights")

    def design(self, signals: Signals) -> Vector:
        """(N, F + G * C): the model's terms."""
        values = {name: self._centred(signals.features[name]) for name in {*self.features, *self.gated}}
        columns = [values[name] for name in self.features]
        for name, (mean, spread) in self.contexts.items():
            gate = min(LIMIT, max(-LIMIT, (signals.context[name] - mean) / spread))
            columns += [values[feature] * gate for feature in self.gated]
        return np.stack(columns, axis=1)

    def predict(self, signals: Signals) -> Vector:
        """(N,): how much nearer to the true prompt each candidate should be than their mean, in cosine."""
        predicted: Vector = np.einsum("nt,t->n", self.design(signals), self._weights)
        return predicted

    @cached_property
    def _weights(self) -> Vector:
        return np.array(self.weights, dtype=np.float64)

    def _centred(self, values: Vector) -> Vector:
        centred: Vector = values - values.mean()
        return np.asarray(centred / (values.std() + SPREAD)) if self.scaled else centred

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Model:
        """From JSON's types."""
        contexts = {name: (float(mean), float(spread)) for name, (mean, spread) in values["contexts"].items()}
        weights = tuple(float(weight) for weight in values["weights"])
        return cls(tuple(values["features"]), tuple(values["gated"]), contexts, bool(values["scaled"]), weights)


class Reranker:
    """Orders candidates; `load` gives the one that the package brings."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(cls, encoder: str = OTHER, path: Path = WEIGHTS) -> Reranker:
        """Reads the model that was trained for an encoder.

        Args:
            encoder: its name. Those without a model of their own get one that reads only how candidates compare with
                each other, which carries over from one encoder to another.
            path: the weights, as `unprompt.search.train_reranker` writes them.

        Raises:
            EncoderError: the file is missing or damaged.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']!r}, expected {FORMAT!r}")
            return cls(Model.from_dict(found["models"].get(encoder) or found["models"][OTHER]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            detail = " ".join(str(error).split())
            raise EncoderError(f"{path} holds no reranker ({detail}): install unprompt again") from None

    def rank(
        self,
        queries: Embeddings,
        candidates: Sequence[Sequence[Candidate]],
        neighbours: Sequence[Sequence[Neighbour]],
        encode_texts: EncodeTexts,
        known: Sequence[Mapping[str, Vector]] | None = None,
    ) -> list[list[Candidate]]:
        """Orders the candidates of Q pictures.

        Args:
            queries: (Q, D), the embedded pictures.
            candidates: for each picture, from `collect_candidates`.
            neighbours: for each picture, those that the candidates were collected from.
            encode_texts: embeds N texts as (N, D); called once, with distinct texts.
            known: for each picture the embeddings (D,) of texts that need not be encoded.

        Returns:
            For each picture its candidates, best first, equal ones as they came. Scores are cosines with the picture,
            also of the part where a candidate is a single one; nothing else is changed.

        Raises:
            ValueError: these are not of the same length.
        """
        known = [{} for _ in candidates] if known is None else known
        pairs = [(each.prompt, own) for held, own in zip(candidates, known, strict=True) for each in held]
        new = list(dict.fromkeys(text for text, own in pairs if text not in own))
        encoded = dict(zip(new, encode_texts(new).astype(np.float64), strict=True)) if new else {}
        ranked: list[list[Candidate]] = []
        for query, held, near, own in zip(queries.astype(np.float64), candidates, neighbours, known, strict=True):
            if not held:
                ranked.append([])
                continue
            embeddings = {**encoded, **own}
            signals = read_signals(query, held, np.stack([embeddings[each.prompt] for each in held]), near)
            scored = [_scored(each, float(cos)) for each, cos in zip(held, signals.features["cos"], strict=True)]
            # Rounded, so that what a product's last bits leave open is a tie.
            order = np.argsort(-self.model.predict(signals).round(9), kind="stable")
            ranked.append([scored[i] for i in order])
        return ranked


def _scored(candidate: Candidate, cosine: float) -> Candidate:
    cosine = round(cosine, 6)
    parts = candidate.parts
    if len(parts) == 1:
        parts = (replace(parts[0], score=cosine, gain=cosine),)
    return replace(candidate, score=cosine, parts=parts)


def _neighbour_cosines(candidates: Sequence[Candidate], neighbours: Sequence[Neighbour]) -> Vector:
    """(N,): the cosine of the nearest neighbour that a candidate, whole, made; NaN for those that made none."""
    cosine_of = {each.hit.id: each.hit.score for each in neighbours}
    ids = [neighbour_of(each) for each in candidates]
    return np.array([np.nan if each is None else cosine_of.get(each, np.nan) for each in ids])


def _mean_text(embeddings: Vector, scores: Vector, chosen: NDArray[np.bool_], sharpness: float) -> Vector:
    """(D,) mean of the chosen texts' embeddings, weighed by exp(sharpness * score); zero when none is chosen."""
    if not chosen.any():
        return np.zeros(embeddings.shape[1])
    weights = np.exp(sharpness * (scores[chosen] - scores[chosen].max()))
    mean: Vector = np.einsum("n,nd->d", weights / weights.sum(), embeddings[chosen])
    return mean


def _fused(neighbour: Vector, held: NDArray[np.bool_], cos: Vector, near: NDArray[np.bool_]) -> Vector:
    """(N,) reciprocal rank fusion over the neighbours' prompts and the prompt index's, 0 for all others."""
    rankings = [
        [int(row) for row in np.argsort(-scores, kind="stable") if chosen[row]]
        for scores, chosen in ((neighbour, held), (cos, near))
    ]
    scores = np.zeros(len(cos))
    for row, score in reciprocal_rank_fusion(rankings):
        scores[row] = score
    return scores


def _cosine(query: Vector, mean: Vector) -> float:
    norm = math.sqrt(float(mean @ mean))
    return float(query @ mean) / norm if norm else 0.0
