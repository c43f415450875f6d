"""Predicts the sentence embedding of the prompt that made a picture: by a head, by neighbours, or by both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from unprompt.errors import EvaluationError
from unprompt.evaluation.embedding.features import Images, Looked, picture_features
from unprompt.evaluation.embedding.head import EmbeddingHead, Mixing
from unprompt.evaluation.embedding.neighbours import LibraryNeighbours, mix
from unprompt.evaluation.metrics.sentence_cosine import EncodeTexts
from unprompt.types import Embeddings, Encoder

if TYPE_CHECKING:
    from unprompt.index.library import Library

Source = Literal["head", "neighbours", "mix"]
SOURCES: Sequence[Source] = ("head", "neighbours", "mix")


class EmbeddingPredictor:
    """Looks at pictures once, and predicts (N, 384) sentence embeddings of norm 1.

    Args:
        encoder: the library's encoder, or the head's where there is no library.
        source: "head", "neighbours" or "mix".
        head: for "head" and "mix".
        library: for "neighbours" and "mix".
        mixing: instead of what was chosen when the head was trained.
        encode: embeds texts with all-MiniLM-L6-v2; the project's own port of it by default.

    Raises:
        EvaluationError: what the source needs is missing, or the head was trained for another encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: Source = "mix",
        *,
        head: EmbeddingHead | None = None,
        library: Library | None = None,
        mixing: Mixing | None = None,
        encode: EncodeTexts | None = None,
    ) -> None:
        if source not in SOURCES:
            raise EvaluationError(f"unknown source {source!r}: use one of {', '.join(SOURCES)}")
        if source != "neighbours" and head is None:
            raise EvaluationError(f"{source!r} needs a head for encoder {encoder.name!r}: train one with embed-train")
        if source != "head" and library is None:
            raise EvaluationError(f"{source!r} needs the pictures of a library: give one, or predict by head")
        self.source = source
        self.encoder = encoder
        self._head = None if source == "neighbours" else head
        self._neighbours = None if source == "head" or library is None else LibraryNeighbours(library, encode)
        self._look = picture_features(encoder, () if self._head is None else self._head.config.inputs)
        self.mixing = mixing or (head.config.mixing if head else Mixing())
        if self._head is not None and self._head.config.fingerprint != self._look.fingerprint:
            raise EvaluationError(
                f"the head was trained for encoder {self._head.config.encoder!r} with other weights than those of "
                f"{encoder.name!r} here: train one with embed-train"
            )

    def __call__(self, images: Images) -> Embeddings:
        """N pictures, PIL or preprocessed by the encoder's `preprocess` -> (N, 384)."""
        return self.predict(self._look(images))

    def predict(self, looked: Looked) -> Embeddings:
        """The same for pictures that were looked at already."""
        said = None if self._head is None else apply_head(self._head, looked)
        if self._neighbours is None:
            assert said is not None
            return said
        near = self._neighbours(looked.embeddings, self.mixing.k, self.mixing.temperature)
        return near if said is None else mix(said, near, self.mixing.weight)


@torch.inference_mode()
def apply_head(head: EmbeddingHead, looked: Looked) -> Embeddings:
    """A head's prediction for (N, F) features: (N, 384)."""
    rows: Embeddings = head(torch.from_numpy(looked.features)).numpy()
    return rows
