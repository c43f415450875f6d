"""From the best prompt of the library and the fragments that fit to one final prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from unprompt.search.results import RankedPrompt, ScoredFragments
from unprompt.types import Candidate, Embeddings, Fragment, Part

MAX_FRAGMENTS = 6
MAX_WORDS = 75
MIN_GAIN = 0.02
"""How much a fragment must add to the cosine with the picture; less is noise of the encoder rather than evidence.

With `starter`, 63,669 prompts and 111,892 fragments, a step of 0.01 brought 22 of 49 pictures of the open domain nearer
to their true prompt and took 20 away from it; one of 0.02 brought 16 nearer and took 10 away.
"""

FRAGMENTS_PER_KIND = 5
"""How many of each kind's best fragments are tried."""


def compose(
    queries: Embeddings,
    prompts: Sequence[RankedPrompt | None],
    fragments: Sequence[ScoredFragments],
    encode_texts: Callable[[Sequence[str]], Embeddings],
) -> list[Candidate]:
    """Writes a final prompt for each of Q pictures: its best prompt, extended greedily under the encoder's cosine.

    In each round every draft is tried with each fragment left to it, and takes the one that raises its cosine with the
    picture most, until none adds `MIN_GAIN` or the prompt is full. A fragment that adds too little once is not tried
    again, which keeps the rounds short. Fragments whose words the prompt holds already are left out, and so are those
    of negative kinds. All pictures advance together, so each round is one call of the encoder.

    Args:
        queries: (Q, D), the embedded pictures.
        prompts: Q prompts to start from; with None the best fragment starts.
        fragments: Q times, by kind, the fragments to try, best first.
        encode_texts: embeds N texts as (N, D).

    Returns:
        Q candidates with a part for the prompt and one for each fragment; empty with score 0 where there was neither.
    """
    drafts = [_Draft(*given) for given in zip(queries, prompts, fragments, strict=True)]
    while active := [(draft, texts) for draft in drafts if (texts := draft.trials())]:
        embeddings = encode_texts([text for _, texts in active for text in texts])
        start = 0
        for draft, texts in active:
            draft.advance(texts, embeddings[start : start + len(texts)])
            start += len(texts)
    return [Candidate(draft.text, draft.score if draft.parts else 0.0, tuple(draft.parts)) for draft in drafts]


def is_negative(kind: str) -> bool:
    """Whether fragments of this kind say what a picture should not be: "negative" and kinds that begin so."""
    return kind.startswith("negative")


def holds_words(text: str, fragment: str) -> bool:
    """Whether the words of `fragment` stand in `text` in one run, whatever their case, punctuation and articles.

    Example:
        >>> holds_words("An oil-painting by Monet", "the oil painting"), holds_words("sunlight", "sun")
        (True, False)
    """
    words = " ".join(_words(fragment))
    return not words or f" {words} " in f" {' '.join(_words(text))} "


class _Draft:
    """One picture's prompt while it grows."""

    def __init__(self, query: NDArray[np.float32], prompt: RankedPrompt | None, fragments: ScoredFragments) -> None:
        self.query = query
        self.start = prompt
        self.pool = list(_pool(fragments))
        self.text = ""
        self.score = -np.inf
        self.parts: list[Part] = []

    def trials(self) -> list[str]:
        """The texts to score next, one for each fragment in the pool; none when the draft is finished."""
        if self.start is not None:
            return [self.start.prompt]
        if sum(part.kind != "prompt" for part in self.parts) >= MAX_FRAGMENTS:
            return []
        self.pool = [part for part in self.pool if self._takes(part.text)]
        return [_append(self.text, part.text) for part in self.pool]

    def _takes(self, fragment: str) -> bool:
        fits = len(_append(self.text, fragment).split()) <= MAX_WORDS
        return fits and not holds_words(self.text, fragment)

    def advance(self, texts: Sequence[str], embeddings: Embeddings) -> None:
        """Takes the best of `trials`, given their (N, D) embeddings, when it is good enough."""
        # Rounded, for the last bits depend on the batch, and should not choose between equals.
        scores = (embeddings @ self.query).round(6)  # (N,)
        best = int(scores.argmax())
        if self.start is not None:
            part = Part(self.start.prompt, self.start.source, "prompt", float(scores[0]))
            self.start = None
        elif scores[best] - self.score < MIN_GAIN:
            self.pool = []
            return
        else:
            part = self.pool[best]
            self.pool = [
                other for row, other in enumerate(self.pool) if row != best and scores[row] - self.score >= MIN_GAIN
            ]
        self.parts.append(part)
        self.text, self.score = texts[best], float(scores[best])


def _pool(fragments: ScoredFragments) -> Iterator[Part]:
    for kind, found in fragments.items():
        if not is_negative(kind):
            for fragment, score in found[:FRAGMENTS_PER_KIND]:
                yield Part(fragment.text, _source(fragment), kind, float(score))


def _source(fragment: Fragment) -> str:
    return f"vocabulary:{fragment.source}" if fragment.source else "vocabulary"


def _append(prompt: str, fragment: str) -> str:
    return f"{prompt.rstrip(' ,;.')}, {fragment}" if prompt else fragment


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in {"a", "an", "the", "by"}]
