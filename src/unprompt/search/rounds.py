"""Searches that need texts encoded, advanced together so that each round is one call of the encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np

from unprompt.types import Embeddings

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

Search = Generator[list[str], Embeddings, Result]
"""Yields texts, is sent their (N, D) embeddings, and returns its result."""

EncodeTexts = Callable[[Sequence[str]], Embeddings]


def advance_together(searches: Sequence[Search[Result]], encode_texts: EncodeTexts) -> list[Result]:
    """Runs searches side by side to their ends.

    A text that several searches, or one search twice, ask for in a round is encoded once.

    Args:
        searches: not started yet.
        encode_texts: embeds N texts as (N, D).

    Returns:
        What each search returned, in their order.
    """
    results: dict[int, Result] = {}
    asked: dict[int, list[str]] = {}
    given: dict[int, Embeddings | None] = dict.fromkeys(range(len(searches)))
    rounds = encoded = 0
    while given:
        asked = {}
        for number, embeddings in given.items():
            try:
                search = searches[number]
                asked[number] = next(search) if embeddings is None else search.send(embeddings)
            except StopIteration as stop:
                results[number] = stop.value
        texts = list(dict.fromkeys(text for wanted in asked.values() for text in wanted))
        given = _deal(asked, texts, encode_texts(texts)) if texts else {n: _nothing() for n in asked}
        rounds += bool(texts)
        encoded += len(texts)
    logger.debug("%d searches took %d rounds and %d encoded texts", len(searches), rounds, encoded)
    return [results[number] for number in range(len(searches))]


def _deal(asked: dict[int, list[str]], texts: Sequence[str], rows: Embeddings) -> dict[int, Embeddings | None]:
    """Each search's own rows, in the order it asked for them."""
    position = {text: i for i, text in enumerate(texts)}
    return {number: rows[[position[text] for text in wanted]] for number, wanted in asked.items()}


def _nothing() -> Embeddings:
    return np.zeros((0, 0), dtype=np.float32)
