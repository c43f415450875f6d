"""CLIPScore (Hessel et al., 2021): how well a text fits the picture itself, without a reference.

CLIPScore(picture, text) = w * max(cos(e(picture), e(prefix + text)), 0),   w = 2.5
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from unprompt.evaluation.metrics.scores import EvaluationError, Scores, check_pairs, mean_scores
from unprompt.evaluation.metrics.sentence_cosine import cosines, embed_distinct
from unprompt.types import Embeddings, Encoder

WEIGHT = 2.5
PREFIX = "A photo depicts "


def clipscore(
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    pictures: Embeddings,
    encoder: Encoder,
    composed_by: Collection[str] = (),
    force: bool = False,
    prefix: str = PREFIX,
) -> Scores:
    """Scores texts against their pictures with an encoder that had no hand in writing them.

    Args:
        candidates: N texts.
        references: N texts; they are not read, all metrics take them.
        pictures: (N, D), the pictures as `encoder` embeds them.
        encoder: the judge; its name goes into the name of the scores.
        composed_by: names and fingerprints of the encoders that any of the systems composed or ranked with.
        force: score although the judge is one of those; the note then says so.
        prefix: put before every text; the paper's own by default.

    Returns:
        Values of 0 to 2.5.

    Raises:
        EvaluationError: the judge composed the texts, or lengths or dimensions differ.
    """
    check_pairs("clipscore", candidates, references)
    circular = bool({encoder.name, encoder.fingerprint} & set(composed_by))
    if circular and not force:
        raise EvaluationError(
            f"clipscore by {encoder.name!r} is circular, that encoder composed the prompts: name another, or force it"
        )
    if pictures.shape != (len(candidates), encoder.dim):
        wanted = (len(candidates), encoder.dim)
        raise EvaluationError(f"clipscore: pictures of shape {pictures.shape}, {encoder.name!r} makes {wanted}")
    texts = embed_distinct([prefix + text for text in candidates], encoder.encode_texts)
    note = f"0 to {WEIGHT}, {encoder.name} (weights {encoder.fingerprint[:12]}), prefix {prefix!r}"
    note += "; CIRCULAR: this encoder composed the prompts" if circular else ""
    return mean_scores(f"clipscore ({encoder.name})", WEIGHT * np.maximum(cosines(pictures, texts), 0.0), note)
