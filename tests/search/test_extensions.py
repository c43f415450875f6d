from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import normalise
from unprompt.search.chains import Chain, ChainScores
from unprompt.search.effect_model import EffectModel
from unprompt.search.extensions import Extensions
from unprompt.search.terms import Terms
from unprompt.search.words import append

COUNT, DIM = 30, 8


class Case:
    """Extensions of two chains of 30 terms, of prompts of at most `words` words."""

    def __init__(self, seed: int, words: int = 99) -> None:
        rng = np.random.default_rng(seed)
        rows = normalise(rng.standard_normal((COUNT, DIM)))
        query = rows[0]
        texts = [f"term{i}" + " more" * int(extra) for i, extra in enumerate(rng.integers(0, 3, COUNT))]
        self.terms = Terms.of(texts, rows, (rows @ query).astype(np.float32), np.ones(COUNT, bool))
        self.model = EffectModel(self.terms)
        self.bases = [self.chain((1, 2), rows[3]), self.chain((4,), rows[5])]
        self.known = ChainScores(query, "a prompt", texts, None)
        self.known.add(append(self.bases[0].text, texts[7]), 0.5, rows[7])
        self.words = words
        self.extensions = Extensions(self.bases, self.model, texts, self.fits, repeat_words=False)

    def chain(self, columns: tuple[int, ...], embedding: np.ndarray) -> Chain:
        text = "a prompt"
        for column in columns:
            text = append(text, self.terms.texts[column])
        score = float(embedding @ self.terms.embeddings[0])
        return Chain(columns, text, score, score, embedding)

    def fits(self, texts: list[str]) -> list[bool]:
        return [len(text.split()) <= self.words for text in texts]

    def usable(self, pair: tuple[int, int]) -> bool:
        base, column = self.bases[pair[0]], pair[1]
        prompt = append(base.text, self.terms.texts[column])
        return column not in base.columns and prompt not in self.known and self.fits([prompt])[0]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(4, 12))
def test_every_usable_pair_is_drawn_once_and_no_other(seed: int, words: int) -> None:
    case = Case(seed, words)
    rng = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []
    while pairs := case.extensions.draw(5, case.known, rng):
        drawn += pairs
        if seed % 2:
            case.extensions.learn(pairs, [case.chain((9,), case.terms.embeddings[9]) for _ in pairs])
    assert len(drawn) == len(set(drawn))
    made = {frozenset((*case.bases[i].columns, column)) for i, column in drawn}
    assert all(map(case.usable, drawn))
    usable = [(i, column) for i in (0, 1) for column in range(COUNT) if case.usable((i, column))]
    assert made == {frozenset((*case.bases[i].columns, column)) for i, column in usable}


def test_before_anything_is_learnt_the_first_drawn_are_those_chosen() -> None:
    drawn = Case(3).extensions.draw(6, Case(3).known, np.random.default_rng(0))
    assert drawn == Case(3).extensions.choose(6, Case(3).known)


def test_draws_try_what_the_mean_does_not_and_repeat_with_their_seed() -> None:
    def pairs(seed: int | None) -> list[tuple[int, int]]:
        case = Case(3)
        case.model.learn(np.array([10, 11, 12]), np.array([0.3, -0.3, 0.2]))
        if seed is None:
            return case.extensions.choose(6, case.known)
        return case.extensions.draw(6, case.known, np.random.default_rng(seed))

    assert pairs(0) == pairs(0)
    assert len({frozenset(pairs(seed)) for seed in range(8)}) > 4
    assert sum(set(pairs(seed)) != set(pairs(None)) for seed in range(8)) > 4
