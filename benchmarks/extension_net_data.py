"""What `extension_net.py` learns from: pictures, the prompts that searches meet, and terms appended to these."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from interrogator_ours import BUDGET, vocabulary_of
from interrogator_pictures import describe
from unprompt.builders.vocabulary import embed_texts
from unprompt.encoders import load_encoder
from unprompt.encoders.training.data import SETS, Example, load_examples, prompt_group
from unprompt.index.contexts import CONTEXT, DTYPE, in_context, kept_contexts
from unprompt.index.text_cache import TextCache
from unprompt.search.budget import load_budget
from unprompt.search.chains import Chain
from unprompt.search.extension_net import ExtensionNet
from unprompt.search.extension_table import ExtensionTable
from unprompt.search.local_search import LocalOptions, search_locally
from unprompt.search.modes import ComposeInput
from unprompt.search.modes.pools import open_terms
from unprompt.search.ranker import FragmentRanker
from unprompt.search.rounds import advance_together
from unprompt.search.terms import Terms
from unprompt.search.train_extension_net import Examples, TermTable
from unprompt.search.weighted_mean import relative_lengths
from unprompt.search.words import append
from unprompt.types import DraftEncoder, Embeddings

Judge = Callable[[str, NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]
"""(prompt, its embedding, query) -> (T,) the cosines expected with each term appended, -inf where not allowed."""

ENCODED = 500
"""Prompts of a search."""
GOOD = 400
"""Of these, the best are drawn from."""
CUT, DROPPED, STRANGE = 0.6, 0.3, 0.15
"""How often a prompt is cut, loses a fragment, or gets two random ones."""
FRAGMENTS = 3
"""The most promising terms that a prompt of the second round is made longer by."""


class Prompts(NamedTuple):
    """The prompts that a search encoded, and their cosines with the picture."""

    texts: list[str]
    scores: list[float]

    def sample(
        self, count: int, rng: np.random.Generator, allowed: NDArray[np.intp], terms: Sequence[str]
    ) -> list[str]:
        """Draws some of the best, and changes most of them."""
        good = np.argsort(-np.array(self.scores), kind="stable")[:GOOD]
        found: list[str] = []
        while len(found) < count:
            pieces = self.texts[int(rng.choice(good))].split(", ")
            if len(pieces) > 3 and rng.random() < CUT:
                pieces = pieces[: int(rng.integers(1, len(pieces) + 1))]
            if len(pieces) > 2 and rng.random() < DROPPED:
                pieces.pop(int(rng.integers(1, len(pieces))))
            if rng.random() < STRANGE:
                pieces += [terms[row] for row in rng.choice(allowed, 2)]
            found += [", ".join(pieces)] if any(piece.strip() for piece in pieces) else []
        return found


def choose_pictures(data: Path, cache: Path, count: int, seed: int) -> tuple[Embeddings, list[str]]:
    """Embeds pictures of the training split, no two prompts of one group, and says what a search starts from.

    The sets come in equal numbers. Seven in ten start from what they show (`describe`), the others from the first words
    of any training prompt, and one in twenty from nothing.
    """
    kept = cache / "features.npy", cache / "starts.json"
    if all(path.exists() for path in kept):
        features = np.load(kept[0], allow_pickle=False)
        if len(features) != count:
            raise click.ClickException(f"{cache} is of {len(features)} pictures: give --pictures {len(features)}")
        return features, json.loads(kept[1].read_text(encoding="utf-8"))
    examples = [each for each in load_examples(data) if each.split == "train"]
    generator = random.Random(seed)
    chosen: list[Example] = []
    groups: set[str] = set()
    queues = [[each for each in examples if each.set == name] for name in SETS]
    for queue in queues:
        generator.shuffle(queue)
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and prompt_group(queue[-1].prompt) in groups:
                queue.pop()
            if queue:
                groups.add(prompt_group(queue[-1].prompt))
                chosen.append(queue.pop())
    generator.shuffle(chosen)
    chosen = chosen[:count]
    starts = []
    for example in chosen:
        kind = generator.random()
        words = describe(example, data).caption if kind < 0.7 else generator.choice(examples).prompt.split(",")[0][:80]
        starts.append(words.strip() if kind < 0.95 else "")
    features = load_encoder().encode_images([example.open() for example in chosen])
    np.save(kept[0], features)
    kept[1].write_text(json.dumps(starts), encoding="utf-8")
    return features, starts


class Recipe:
    """The terms, the encoder, and how terms are appended.

    Args:
        folder: with `interrogator.py`'s ``lists.json`` and ``table.npy``; the terms in context are kept there too.
        seed: of all that is drawn.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.encoder = load_encoder()
        assert isinstance(self.encoder, DraftEncoder)
        self.draft_texts = self.encoder.draft_texts
        lists = json.loads((folder / "lists.json").read_text(encoding="utf-8"))
        self.vocabulary = vocabulary_of(lists, np.load(folder / "table.npy", allow_pickle=False))
        self.texts = self.vocabulary.terms
        cache = TextCache(self.encoder, DTYPE, folder / "contexts")
        embed_texts(in_context(sorted(set(self.texts), key=len)), self.encoder, cache, None)
        contexts = kept_contexts(self.vocabulary, self.encoder, cache)
        assert contexts is not None
        [probe] = self.encoder.encode_texts([CONTEXT])
        self.table = TermTable(self.vocabulary.matrix, contexts, self.vocabulary.lengths, probe)
        self.ranker, self.budget = FragmentRanker(self.vocabulary), load_budget(BUDGET)
        self.allowed = np.flatnonzero(self.terms(np.zeros(self.encoder.dim, dtype=np.float32)).allowed)

    def terms(self, query: NDArray[np.float32]) -> Terms:
        """All terms as a search sees them that has no network yet."""
        [terms] = open_terms(self.task(query))
        return replace(terms, extensions=None)

    def task(self, query: NDArray[np.float32]) -> ComposeInput:
        """As `interrogator_ours.py` makes it, without a subject."""
        return ComposeInput(
            queries=query[None],
            subjects=[None],
            ranker=self.ranker,
            encode_texts=self.encoder.encode_texts,
            budget=self.budget,
            contexts=lambda: self.table.contexts,
            draft_texts=self.draft_texts,
        )

    def judge(self, net: ExtensionNet) -> Judge:
        """What a network expects of all terms."""
        return Forecast(self, net)

    def longer(self, prompt: str, query: NDArray[np.float32], judge: Judge, rng: np.random.Generator) -> str:
        """The prompt with up to `FRAGMENTS` of its 200 most promising terms, as long as they fit."""
        count = int(rng.integers(0, FRAGMENTS + 1))
        if not count:
            return prompt
        promising = best(judge(prompt, self.draft_texts([prompt])[0], query), 200)
        for row in rng.choice(promising, count, replace=False).tolist():
            after = append(prompt, self.texts[row])
            prompt = after if self.budget.fits([after])[0] else prompt
        return prompt

    def extend(self, prompt: str, query: NDArray[np.float32], judge: Judge, rng: np.random.Generator) -> Examples:
        """Appends terms to a prompt: some at random, the others from the most promising.

        By the weighted mean 120 at random, and 120 of the best twentieth; by a network 40 at random, 80 of the best
        2,000 and 80 of the best 200.
        """
        embedding = self.draft_texts([prompt])[0]
        expected = judge(prompt, embedding, query)
        pools = [(80, 2000), (80, 200)] if isinstance(judge, Forecast) else [(120, len(self.allowed) // 20)]
        drawn = [rng.choice(self.allowed, 40 if len(pools) > 1 else 120, replace=False)]
        drawn += [rng.choice(best(expected, size), count, replace=False) for count, size in pools]
        return self.extended(prompt, embedding, query, np.concatenate(drawn))

    def extended(
        self, prompt: str, embedding: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.intp]
    ) -> Examples:
        """The prompt with each of n terms; embeddings are drafts, as in a search."""
        found = self.draft_texts([append(prompt, self.texts[row]) for row in rows.tolist()])
        return Examples(
            embedding[None],
            np.array([len(prompt)], dtype=np.float32),
            query[None],
            np.zeros(len(rows), dtype=np.intp),
            rows.astype(np.intp),
            found.astype(np.float16),
        )


class Forecast:
    """A `Judge`: what a network expects, as a search asks it."""

    def __init__(self, recipe: Recipe, net: ExtensionNet) -> None:
        table = recipe.table
        self._table = ExtensionTable(net, table.embeddings, table.contexts, table.lengths)
        self._allowed, self._terms = recipe.allowed, len(table.lengths)

    def __call__(self, prompt: str, embedding: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
        values = np.full(self._terms, -np.inf)
        chain = Chain((), prompt, 0.0, 0.0, embedding)
        values[self._allowed] = self._table.predict(query, [chain], self._allowed)[0]
        return values


class Mean:
    """A `Judge`: the mean weighted by length, without a network."""

    def __init__(self, recipe: Recipe) -> None:
        self._table, self._allowed = recipe.table, recipe.allowed

    def __call__(self, prompt: str, embedding: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
        weights = relative_lengths(self._table.lengths, float(len(prompt))).astype(np.float64)
        matrix = self._table.embeddings
        norms = np.sqrt(1 + weights**2 + 2 * weights * (matrix @ embedding))
        values = np.full(len(weights), -np.inf)
        values[self._allowed] = ((embedding @ query + weights * (matrix @ query)) / norms)[self._allowed]
        return values


def best(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Rows of the greatest values, greatest first, equals in their order."""
    return np.argsort(-values, kind="stable")[:count]


def search_prompts(recipe: Recipe, query: NDArray[np.float32], start: str, picture: int) -> Prompts:
    """Searches for a chain as mode `best` does, and returns the prompts that it encoded."""
    start = recipe.task(query).allowed(start) if start else ""
    found: dict[str, float] = {}

    def encode(texts: Sequence[str]) -> Embeddings:
        embeddings = recipe.draft_texts(texts)
        found.update(zip(texts, (embeddings @ query).round(6).tolist(), strict=True))
        return embeddings

    options = replace(LocalOptions(), max_encoded=ENCODED, repeat_words=True, seed=recipe.seed + picture)
    advance_together([search_locally(query, start, recipe.terms(query), recipe.budget.fits, options)], encode)
    return Prompts(list(found), list(found.values()))
