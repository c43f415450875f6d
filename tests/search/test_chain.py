from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_cases import (
    WORDS,
    Counting,
    at_most,
    check_chain,
    check_nothing_to_choose_from,
    cosine,
    greedy,
    many_texts,
    phrases,
)
from fakes import FakeEncoder
from unprompt.search.chain import ChainOptions, Pool, search_chain
from unprompt.search.chains import Chain
from unprompt.search.rounds import advance_together
from unprompt.search.words import append, holds_words

EVERYTHING = ChainOptions(passes=99, tried=999)


def pool_of(texts: Sequence[str], query: np.ndarray, kinds: Sequence[str] | None = None, dim: int = 64) -> Pool:
    embeddings = FakeEncoder(dim).encode_texts(texts)
    return Pool(list(texts), list(kinds or ["flavor"] * len(texts)), embeddings, embeddings @ query)


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
    [found] = advance_together([search_chain(query, start, pool_of(texts, query, kinds, dim), fits, options)], encode)
    return found


@settings(max_examples=40)
@given(st.lists(phrases, min_size=1, max_size=8, unique=True), phrases, st.lists(phrases, min_size=1, max_size=4))
def test_no_fragment_makes_it_better_where_all_are_tried(texts: list[str], start: str, target: list[str]) -> None:
    found = search(" ".join(target), start, texts, EVERYTHING)
    for text in texts:
        if not holds_words(found.text, text):
            assert cosine(append(found.text, text), " ".join(target)) <= found.score + 2e-4


@settings(max_examples=40)
@given(st.lists(phrases, min_size=1, max_size=8, unique=True), st.just("") | phrases, phrases)
def test_more_passes_never_make_it_worse(texts: list[str], start: str, target: str) -> None:
    scores = [search(target, start, texts, ChainOptions(passes=passes)).score for passes in (1, 2, 9)]
    assert scores == sorted(scores)


def test_a_pass_goes_on_without_the_fragment_that_disappointed() -> None:
    texts, better = many_texts(), 0
    for target in (" ".join(WORDS[i : i + 9]) for i in range(20)):
        once, twice = (search(target, "word0", texts, ChainOptions(passes=passes)) for passes in (1, 2))
        assert twice.columns[: len(once.columns)] == once.columns
        better += twice.score > once.score
    assert better > 5


@settings(max_examples=40)
@given(st.lists(phrases, min_size=1, max_size=12, unique=True), st.just("") | phrases, phrases, st.integers(2, 9))
def test_what_every_chain_is(texts: list[str], start: str, target: str, limit: int) -> None:
    check_chain(search(target, start, texts, limit=limit), texts, start, target, limit)


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
    check_nothing_to_choose_from(search)


def test_pictures_of_a_batch_advance_in_one_call_a_round_and_change_nothing() -> None:
    targets = ["word1 word2 word3", "word4 word5 word6 word7", "word8"]
    encode = Counting()
    queries = encode.encoder.encode_texts(targets)
    fits = at_most(8)
    searches = [search_chain(query, "word9", pool_of(WORDS, query), fits) for query in queries]
    together = advance_together(searches, encode)
    rounds = []
    for target, found in zip(targets, together, strict=True):
        own = Counting()
        query = own.encoder.encode_texts([target])[0]
        [alone] = advance_together([search_chain(query, "word9", pool_of(WORDS, query), fits)], own)
        assert (alone.text, alone.gains) == (found.text, found.gains)
        rounds.append(len(own.calls))
    assert len(encode.calls) == max(rounds)
    assert encode.calls[0] == ["word9"], "a text that several pictures need is encoded once"


def test_a_few_of_a_large_pool_are_encoded_in_a_call_a_pass() -> None:
    texts = many_texts()
    target = " ".join(WORDS[:9])
    encode = Counting()
    query = encode.encoder.encode_texts([target])[0]
    [found] = advance_together([search_chain(query, "word0", pool_of(texts, query), at_most(12))], encode)
    prompt, encodes = greedy("word0", texts, target)
    assert encodes > 1000
    assert found.score >= 0.95 * cosine(prompt, target)
    assert len(encode.calls) <= 3, "the start, and two passes"
    assert sum(map(len, encode.calls)) <= 12


def test_a_fragment_must_bring_what_it_costs() -> None:
    target = " ".join(WORDS[:6])
    found = search(target, "word30", WORDS[:20], ChainOptions(part_cost=0.05))
    assert found.columns
    for kept in range(1, len(found.columns) + 1):
        assert sum(found.gains[kept:]) >= 0.05 * len(found.gains[kept:]) - 1e-6
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
