from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

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
from unprompt.search.chain import Pool, search_chain
from unprompt.search.chain_options import ChainOptions
from unprompt.search.chains import Chain
from unprompt.search.rounds import advance_together
from unprompt.search.words import append, holds_words

EVERYTHING = ChainOptions(
    first=999, explored=999, survivors=999, beam=999, patience=9, refinements=0, max_encoded=10**9
)


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


def test_only_a_few_of_a_large_pool_are_encoded_and_the_best_is_found() -> None:
    texts = many_texts()
    target = " ".join(WORDS[:9])
    encode = Counting()
    query = encode.encoder.encode_texts([target])[0]
    [found] = advance_together([search_chain(query, "word0", pool_of(texts, query), at_most(12))], encode)
    prompt, encodes = greedy("word0", texts, target)
    assert found.score >= cosine(prompt, target) - 1e-6
    assert sum(map(len, encode.calls)) <= encodes / 5


def test_it_stops_where_it_may_encode_no_more() -> None:
    encode = Counting()
    query = encode.encoder.encode_texts([" ".join(WORDS)])[0]
    options = ChainOptions(max_encoded=100, explored=20, survivors=10, refined=10)
    [found] = advance_together([search_chain(query, "dog", pool_of(WORDS, query), at_most(99), options)], encode)
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
