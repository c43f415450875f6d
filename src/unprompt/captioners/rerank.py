"""Reranking captions by the picture: a captioner's beams, ordered by what an encoder sees in picture and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unprompt.captioners.interface import CaptionerError
from unprompt.types import Candidate, Embeddings, Encoder, Part


class Caption(NamedTuple):
    """What a captioner wrote: its prompt, and the score of its hypothesis (see `decode`), at most 0."""

    prompt: str
    score: float


def rerank(
    encoder: Encoder,
    pictures: Embeddings,
    captions: Sequence[Sequence[Caption]],
    *,
    source: str,
    weight: float = 0.05,
) -> list[list[Candidate]]:
    """Orders each picture's captions by cosine(picture, caption) + weight * score.

    Args:
        encoder: embeds the captions, each different text once.
        pictures: (B, D), the same encoder's embeddings of the pictures.
        captions: for each picture the captioner's, in any order; a prompt that comes twice keeps its better score.
        source: the captioner's name, for the candidates' parts.
        weight: of the captioner's score, a mean log-probability a token of about -3 to 0, beside the cosine; 0 and
            above.

    Returns:
        For each picture its candidates, best first; equal ones by captioner's score, then by prompt. A candidate's
        score is its cosine.

    Raises:
        CaptionerError: the numbers of pictures and captions differ, or the weight is below 0.
    """
    if len(pictures) != len(captions):
        raise CaptionerError(f"{len(pictures)} pictures and captions for {len(captions)}: give the same number")
    if not weight >= 0:
        raise CaptionerError(f"weight {weight}: give 0 or more")
    prompts = sorted({caption.prompt for each in captions for caption in each})
    embeddings = dict(zip(prompts, encoder.encode_texts(prompts), strict=True))
    ranked = []
    for picture, each in zip(pictures, captions, strict=True):
        best: dict[str, float] = {}
        for prompt, score in each:
            best[prompt] = max(score, best.get(prompt, score))
        cosines = {prompt: float(np.dot(picture, embeddings[prompt])) for prompt in best}
        order = sorted(best, key=lambda prompt: (-(cosines[prompt] + weight * best[prompt]), -best[prompt], prompt))
        ranked.append([_candidate(prompt, cosines[prompt], source) for prompt in order])
    return ranked


def _candidate(prompt: str, cosine: float, source: str) -> Candidate:
    return Candidate(prompt, cosine, (Part(prompt, source, "caption", cosine),))
