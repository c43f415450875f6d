from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeEncoder
from unprompt.search.chain import Pool, search_chain
from unprompt.search.chain_options import ChainOptions
from unprompt.search.chains import Chain
from unprompt.search.rounds import advance_together
from unprompt.search.words import append, holds_words
from unprompt.types import Embeddings

WORDS = [f"word{i}" for i in range(40)]
EVERYTHING = ChainOptions(
    first=999, explored=999, survivors=999, beam=999, patience=9, refinements=0, max_encoded=10**9
)
phrases = st.lists(st.sampled_from(WORDS[:12]), min_size=1, max_size=2, unique=True).map(" ".join)


class Counting:
    """A fake encoder that counts the texts of every call."""

    def __init__(self, dim: int = 64) -> None:
        self.encoder = FakeEncoder(dim)
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.calls.append(list(texts))
        return self.encoder.encode_texts(texts)


def pool_of(texts: Sequence[str], query: np.ndarray, kinds: Sequence[str] | None = None, dim: int = 64) -> Pool:
    embeddings = FakeEncoder(dim).encode_texts(texts)
    return Pool(list(texts), list(kinds or ["flavor"] * len(texts)), embeddings, embeddings @ query)


def at_most(words: int) -> object:
    return lambda texts: [len(text.split()) <= words for text in texts]


def search(
    target: str,
    start: str,
    texts: Sequence[str],
    options: ChainOptions | None = None,
    limit: int = 99,
    sign: int = 1,
    kinds: Sequence[str] | None = None,
    dim: int = 64,
) -> Chain:
    encode = Counting(dim)
    query = sign * encode.encoder.encode_texts([target])[0]
    fits = at_most(limit)
    [found] = advance_together([search_chain(query, start, pool_of(texts, query, kinds, dim), fits, options)], encode)  # type: ignore[arg-type]
    return found


def cosine(text: str, target: str) -> float:
    return float(np.dot(*FakeEncoder(64).encode_texts([text, target]).astype(np.float64)))


@settings(max_examples=40)
@given(st.lists(phrases, min_size=1, max_size=6, unique=True), phrases, st.lists(phrases, min_size=1, max_size=4))
def test_a_wide_beam_finds_the_best_of_all_chains(texts: list[str], start: str, target: list[str]) -> None:
    found = search(" ".join(target), start, texts, EVERYTHING)
    best = cosine(start, " ".join(target))
    for size in range(1, len(texts) + 1):
        for chosen in combinations(texts, size):  # the fake encoder does not see order
            prompt = start
            for text in sorted(chosen, key=lambda text: -len(text)):
                prompt = prompt if holds_words(prompt, text) else append(prompt, text)
            best = max(best, cosine(prompt, " ".join(target)))
    # Which of two overlapping fragments comes first decides what may follow: enumeration above tries one order.
    assert found.score >= best - 2e-4
    assert found.score == pytest.approx(cosine(found.text, " ".join(target)), abs=2e-6)


@settings(max_examples=40)
@given(st.lists(phrases, min_size=1, max_size=12, unique=True), st.just("") | phrases, phrases, st.integers(2, 9))
def test_what_every_chain_is(texts: list[str], start: str, target: str, limit: int) -> None:
    found = search(target, start, texts, limit=limit)
    assert len(found.gains) == len(found.columns) + 1
    assert sum(found.gains) == pytest.approx(found.score, abs=1e-6)
    prompt = start
    for column in found.columns:
        assert not holds_words(prompt, texts[column])
        prompt = append(prompt, texts[column])
    assert prompt == found.text
    assert not found.columns or len(found.text.split()) <= limit
    if start:
        assert found.score >= cosine(start, target) - 2e-6
    else:
        singles = [cosine(text, target) for text in texts if len(text.split()) <= limit]
        assert found.score >= max(singles, default=0.0) - 2e-6


def test_a_negated_query_minimises_from_the_first_step() -> None:
    texts = WORDS[:20]
    target = " ".join(texts)  # so that every cosine is above zero: a start that is not negated would never be beaten
    lowest = search(target, "", texts, sign=-1, limit=4)
    assert -lowest.score == pytest.approx(cosine(lowest.text, target), abs=2e-6)
    alone = min(cosine(text, target) for text in texts)
    assert -lowest.score <= alone + 1e-6
    away = "word1 word2 word3"
    far = search(away, "", [*WORDS[:10], "word1 word2"], sign=-1)
    assert len(far.columns) > 1
    assert -far.score < min(cosine(text, away) for text in WORDS[:10])


def test_nothing_to_choose_from() -> None:
    assert search("word1", "word2", []).text == "word2"
    assert search("word1", "", []).text == ""
    assert search("word1", "", []).gains == (0.0,)
    assert search("word1", "", ["word1"], limit=0).text == ""
    assert search("word1", "word2 word3", ["word1"], limit=1).text == "word2 word3"


def test_pictures_of_a_batch_advance_in_one_call_a_round_and_change_nothing() -> None:
    targets = ["word1 word2 word3", "word4 word5 word6 word7", "word8"]
    encode = Counting()
    queries = encode.encoder.encode_texts(targets)
    fits = at_most(8)
    searches = [search_chain(query, "word9", pool_of(WORDS, query), fits) for query in queries]  # type: ignore[arg-type]
    together = advance_together(searches, encode)
    rounds = []
    for target, found in zip(targets, together, strict=True):
        own = Counting()
        query = own.encoder.encode_texts([target])[0]
        [alone] = advance_together([search_chain(query, "word9", pool_of(WORDS, query), fits)], own)  # type: ignore[arg-type]
        assert (alone.text, alone.gains) == (found.text, found.gains)
        rounds.append(len(own.calls))
    assert len(encode.calls) == max(rounds)
    assert encode.calls[0] == ["word9"], "a text that several pictures need is encoded once"


def test_only_a_few_of_a_large_pool_are_encoded_and_the_best_is_found() -> None:
    rng = np.random.default_rng(3)
    texts = sorted({" ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(1200)})
    target = " ".join(WORDS[:9])
    encode = Counting()
    query = encode.encoder.encode_texts([target])[0]
    [found] = advance_together([search_chain(query, "word0", pool_of(texts, query), at_most(12))], encode)  # type: ignore[arg-type]
    # Greedy search that encodes everything, as clip-interrogator does.
    prompt, encodes = "word0", 0
    while len(prompt.split()) <= 9:
        trials = [append(prompt, text) for text in texts if not holds_words(prompt, text)]
        encodes += len(trials)
        prompt = max(trials, key=lambda trial: cosine_with(query, trial))
    assert found.score >= cosine_with(query, prompt) - 1e-6
    assert sum(map(len, encode.calls)) <= encodes / 5


def cosine_with(query: np.ndarray, text: str) -> float:
    return float(FakeEncoder(64).encode_texts([text])[0] @ query)


def test_it_stops_where_it_may_encode_no_more() -> None:
    encode = Counting()
    query = encode.encoder.encode_texts([" ".join(WORDS)])[0]
    options = ChainOptions(max_encoded=100, explored=20, survivors=10, refined=10)
    [found] = advance_together([search_chain(query, "dog", pool_of(WORDS, query), at_most(99), options)], encode)  # type: ignore[arg-type]
    assert found.columns
    # A round that began may end, and the parts' gains are measured at the last.
    assert sum(map(len, encode.calls)) <= 100 + 10 + 2 * len(found.columns)


def test_a_fragment_must_bring_what_it_costs() -> None:
    target = " ".join(WORDS[:6])
    options = ChainOptions(part_cost=0.05)
    found = search(target, "word30", WORDS[:20], options)
    assert found.columns
    for left_out in found.columns:
        rest = "word30"
        for column in found.columns:
            rest = rest if column == left_out else append(rest, WORDS[column])
        assert found.score - cosine(rest, target) >= 0.05 - 2e-4
    assert len(found.columns) < len(search(target, "word30", WORDS[:20]).columns)


def test_near_duplicates_and_kinds_over_their_limit_stay_out() -> None:
    texts = ["word1 word2 word3", "word1 word2 word4", "word5"]
    target = "word1 word2 word3 word4 word5"
    assert len(search(target, "word9", texts).columns) == 3
    apart = search(target, "word9", texts, ChainOptions(near_duplicate=0.5))
    assert sorted(texts[column] for column in apart.columns) in (
        [texts[0], "word5"],
        [texts[1], "word5"],
    )
    limited = search(
        target, "word9", texts, ChainOptions(kind_limits={"artist": 1}), kinds=["artist", "artist", "flavor"]
    )
    assert len(limited.columns) == 2
    costly = search(target, "word9", texts, ChainOptions(redundancy_cost=0.6))
    assert 1 <= len(costly.columns) < 3


def test_refinement_replaces_what_no_longer_helps() -> None:
    # The first text is the best first step, and then keeps the second one out, which is better beside the third.
    texts = ["word1 word2 word3 bad", "word1 word2", "word3 word4"]
    target = "word1 word2 word3 word4"
    plain, refined = (
        search(target, "word9", texts, ChainOptions(max_parts=2, refinements=rounds), dim=2048) for rounds in (0, 8)
    )
    assert plain.columns == (0, 2)
    assert sorted(refined.columns) == [1, 2]
    assert refined.score > plain.score + 0.01
