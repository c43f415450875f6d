"""Our side of the comparison with CLIP Interrogator: run by `interrogator.py`, one process like CI's.

python interrogator_ours.py LISTS.json TABLE.npy
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interrogator_worker import CountingEncoder, serve, timed
from unprompt.builders.vocabulary import embed_texts
from unprompt.encoders import load_encoder
from unprompt.index.contexts import DTYPE, in_context, kept_contexts
from unprompt.index.text_cache import TextCache
from unprompt.index.vocabulary import Vocabulary
from unprompt.search.budget import load_budget
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.ranker import FragmentRanker
from unprompt.types import Embeddings, Fragment, Part

KINDS = {
    "artists": "artist",
    "flavors": "flavor",
    "mediums": "medium",
    "movements": "movement",
    "trendings": "trending",
}
"""CI's lists in the order in which it merges them, and what they hold."""

BUDGET = "clip"


def vocabulary_of(lists: dict[str, list[str]], table: Embeddings) -> Vocabulary:
    """CI's lists as a vocabulary, blanks and repetitions kept, with the embeddings that CI itself ranks with.

    Args:
        lists: CI's lists by their names.
        table: (111867, D), the embeddings of the lists' terms, the two of an artist side by side.
    """
    fragments = [Fragment(text, kind, "clip-interrogator") for name, kind in KINDS.items() for text in lists[name]]
    return Vocabulary.of(fragments, table)


class Side:
    """The calls that `interrogator.py` makes; as those of CI's side, but all pictures of a call are one batch."""

    def __init__(self, lists: Path, table: Path) -> None:
        self._encoder = CountingEncoder(load_encoder("starter"))
        texts = json.loads(lists.read_text(encoding="utf-8"))
        vocabulary = vocabulary_of(texts, np.load(table, allow_pickle=False))
        if vocabulary.terms != texts["merged"]:
            raise SystemExit("the vocabulary's terms are not those of CI's merged table")
        self._ranker = FragmentRanker(vocabulary)
        self._budget = load_budget(BUDGET)
        # Made once, as CI's merged table is.
        cache = TextCache(self._encoder.encoder, DTYPE, table.parent / "contexts")
        embed_texts(in_context(sorted(set(vocabulary.terms), key=len)), self._encoder.encoder, cache, None)
        self._contexts = kept_contexts(vocabulary, self._encoder.encoder, cache)
        self._features: Embeddings = np.zeros((0, vocabulary.matrix.shape[1]), dtype=np.float32)

    def features(self, path: str) -> int:
        """Loads the pictures' embeddings, (Q, D); later calls name them by row."""
        self._features = np.load(path, allow_pickle=False)
        return len(self._features)

    def rank(self, rows: list[int], k: int, batched: bool = False) -> dict[str, Any]:
        """The k best of all terms: in one batch, or one picture after another."""
        batches = [self._features[rows]] if batched else [self._features[[row]] for row in rows]
        answer = timed(lambda: [found for batch in batches for found in self._ranker.merged(batch, k)], self._encoder)
        answer["result"] = [[fragment.text for fragment in found] for found in answer["result"]]
        return answer

    def compose(self, mode: str, rows: list[int], captions: list[str], batched: bool = False) -> dict[str, Any]:
        """One of our modes: in one batch, or one picture after another. The best prompt of each picture."""
        work = list(zip(rows, captions, strict=True))
        batches = [work] if batched else [[each] for each in work]
        return timed(lambda: [prompt for batch in batches for prompt in self._compose(mode, batch)], self._encoder)

    def _compose(self, mode: str, work: Sequence[tuple[int, str]]) -> list[str]:
        queries = self._features[[row for row, _ in work]]
        subjects = [Part(caption, "caption", "caption", 0.0) for _, caption in work]
        task = ComposeInput(
            queries=queries,
            subjects=subjects,
            ranker=self._ranker,
            encode_texts=self._encoder.encode_texts,
            budget=self._budget,
            contexts=lambda: self._contexts,
            draft_texts=self._encoder.draft_texts,
        )
        return [candidate.prompt for candidate in MODES[mode](task)]


def main() -> None:
    side = Side(Path(sys.argv[1]), Path(sys.argv[2]))
    serve({name: getattr(side, name) for name in ("features", "rank", "compose")})


if __name__ == "__main__":
    main()
