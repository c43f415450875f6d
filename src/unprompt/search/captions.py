"""Captions for the pictures that were searched with: captioners are told what was found near them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unprompt.search.evidence import Evidence
from unprompt.search.rounds import EncodeTexts
from unprompt.types import Candidate, Captioner, Part

BEAMS = 5
"""Captions of each captioner, at most."""
MAX_TOKENS = 64
"""More than a prompt's 30 words need; captioners that were trained to write shorter ones stop earlier."""
TOLD = 10
"""How many neighbours' prompts a captioner is told."""


def write_captions(captioners: Sequence[Captioner], evidence: Sequence[Evidence]) -> list[list[Candidate]]:
    """Asks every captioner for captions of Q queries.

    Queries without a picture (words, embeddings, several pictures combined) get none.

    Returns:
        For each query its captions, captioner by captioner, best first, with mean log-probabilities as scores. These
        are rounded, for their last digits change with the batch.
    """
    seen = [(row, each.query.picture) for row, each in enumerate(evidence)]
    pictures = {row: picture for row, picture in seen if picture is not None}
    captions: list[list[Candidate]] = [[] for _ in evidence]
    if not pictures:
        return captions
    told = [evidence[row].told(TOLD) for row in pictures]
    for captioner in captioners:
        written = captioner.caption(
            list(pictures.values()),
            num_beams=BEAMS,
            max_tokens=MAX_TOKENS,
            neighbours=told if any(told) else None,
        )
        for row, found in zip(pictures, written, strict=True):
            captions[row] += [replace(each, score=round(each.score, 4)) for each in found]
    return captions


def captioned_subjects(
    captioners: Sequence[Captioner], evidence: Sequence[Evidence], encode_texts: EncodeTexts
) -> list[Part | None]:
    """What each of Q queries shows, in the words of the caption nearest to it; None where there is no caption.

    Returns:
        Parts of kind "subject" whose source is the captioner; their scores are not set.
    """
    captions = [[each for each in written if each.prompt.strip()] for written in write_captions(captioners, evidence)]
    texts = list(dict.fromkeys(each.prompt for written in captions for each in written))
    embedded = dict(zip(texts, encode_texts(texts).astype(np.float64), strict=True)) if texts else {}
    subjects: list[Part | None] = []
    for found, written in zip(evidence, captions, strict=True):
        query = found.query.embedding.astype(np.float64)
        # Rounded, so that what a product's last bits leave open is a tie; the likelier caption comes first.
        ranked = sorted(written, key=lambda each: -round(float(embedded[each.prompt] @ query), 6))
        subjects.append(Part(ranked[0].prompt, ranked[0].parts[0].source, "subject", 0.0) if ranked else None)
    return subjects
