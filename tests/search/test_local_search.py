from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
from fakes import FakeEncoder, normalise, word_vector
from unprompt.search.chains import Chain, choose_again
from unprompt.search.exchanges import SETTLING, TENURE, ExchangeMemory
from unprompt.search.local_search import LocalOptions, search_locally
from unprompt.search.rounds import Search, advance_together
from unprompt.search.terms import Terms
from unprompt.search.words import plain_words
from unprompt.types import Embeddings

QUICK = LocalOptions(max_encoded=200)


def terms_of(texts: Sequence[str], query: np.ndarray, dim: int = 64) -> Terms:
    embeddings = FakeEncoder(dim).encode_texts(texts)
    allowed = np.array([bool(plain_words(text)) for text in texts], dtype=bool)
    return Terms.of(list(texts), embeddings, embeddings @ query, allowed)


def begin(
    target: str, start: str, texts: Sequence[str], options: LocalOptions = QUICK, limit: int = 99, dim: int = 64
) -> Search[Chain]:
    """The search and the choice among what it found."""
    query = FakeEncoder(dim).encode_texts([target])[0]
    chains = yield from search_locally(query, start, terms_of(texts, query, dim), at_most(limit), options)
    return (yield from choose_again(query, start, texts, chains))


def search(
    target: str, start: str, texts: Sequence[str], options: LocalOptions = QUICK, limit: int = 99, dim: int = 64
) -> Chain:
    return advance_together([begin(target, start, texts, options, limit, dim)], Counting(dim))[0]


@settings(max_examples=25)
@given(st.lists(phrases, min_size=1, max_size=12, unique=True), st.just("") | phrases, phrases, st.integers(2, 9))
def test_what_every_chain_is(texts: list[str], start: str, target: str, limit: int) -> None:
    check_chain(search(target, start, texts, limit=limit), texts, start, target, limit)


def test_nothing_to_choose_from() -> None:
    check_nothing_to_choose_from(search)


def test_it_beats_a_greedy_search_that_encodes_everything() -> None:
    texts = many_texts()
    target = " ".join(WORDS[:9])
    encode = Counting()
    [found] = advance_together([begin(target, "word0", texts, LocalOptions(max_encoded=500), 12)], encode)
    prompt, encodes = greedy("word0", texts, target)
    assert found.score >= cosine(prompt, target) - 1e-6
    assert sum(map(len, encode.calls)) <= min(encodes / 5, 500 + 16 + 32 + 8 + 2 * len(found.columns))


def test_terms_that_promise_nothing_beside_the_start_are_found_once_something_was_learnt() -> None:
    rng = np.random.default_rng(5)
    texts = [*WORDS[:6], *(f"noise{i} noise{j}" for i, j in rng.integers(0, 60, (400, 2)))]
    target = " ".join(WORDS[:6])
    found = search(target, "dog", texts, LocalOptions(active=8, max_encoded=300))
    assert {texts[column] for column in found.columns} == set(WORDS[:6])


def test_exchanges_lead_out_of_a_local_optimum() -> None:
    # The first text is the best first step, and then keeps the second one out, which is better beside the third.
    texts = ["word1 word2 word3 bad", "word1 word2", "word3 word4"]
    found = search("word1 word2 word3 word4", "word9", texts, replace(QUICK, max_parts=2), dim=2048)
    assert sorted(found.columns) == [1, 2]


def test_words_may_be_repeated_where_that_is_wanted() -> None:
    texts, target = ["word1 word3", "word1"], "word1 word1 word2 word3"
    assert search(target, "word2", texts).text == "word2, word1 word3"
    repeated = search(target, "word2", texts, replace(QUICK, repeat_words=True))
    assert sorted(repeated.text.split(", ")[1:]) == ["word1", "word1 word3"]


def test_pictures_of_a_batch_advance_together_and_change_nothing() -> None:
    targets = ["word1 word2 word3", "word4 word5 word6 word7", "word8"]
    encode = Counting()
    together = advance_together([begin(target, "word9", WORDS, limit=8) for target in targets], encode)
    calls = []
    for target, found in zip(targets, together, strict=True):
        own = Counting()
        [alone] = advance_together([begin(target, "word9", WORDS, limit=8)], own)
        assert (alone.text, alone.gains) == (found.text, found.gains)
        calls.append(len(own.calls))
    assert len(encode.calls) == max(calls)


def test_a_search_encodes_no_prompt_twice() -> None:
    encode, query = Counting(), FakeEncoder(64).encode_texts([" ".join(WORDS[:9])])[0]
    advance_together([search_locally(query, "word0", terms_of(WORDS, query), at_most(99), QUICK)], encode)
    texts = [text for call in encode.calls for text in call]
    assert len(texts) == len(set(texts))


def test_the_others_found_are_the_best_that_were_met() -> None:
    encode, query = Counting(), FakeEncoder(64).encode_texts([" ".join(WORDS[:9])])[0]
    options = replace(QUICK, finalists=9, margin=0.05)
    [[best, *others]] = advance_together(
        [search_locally(query, "word0", terms_of(WORDS, query), at_most(99), options)], encode
    )
    scores = {text: round(cosine(text, " ".join(WORDS[:9])), 6) for call in encode.calls for text in call}
    near = sorted(score for text, score in scores.items() if text != best.text and score >= best.score - 0.05)
    assert len(near) > 4, "else the margin is not tested"
    assert [each.score for each in others] == pytest.approx(near[::-1][:8], abs=2e-6)
    assert len({each.text for each in (best, *others)}) == len(others) + 1


def test_the_choice_mends_the_order_of_drafts() -> None:
    """Drafts are off by about 0.1, so that what is best by them is not."""
    rng, target = np.random.default_rng(3), " ".join(WORDS[:9])
    texts = sorted({" ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(200)})
    query = FakeEncoder(64).encode_texts([target])[0]

    def drafted(texts: Sequence[str]) -> Embeddings:
        noise = [0.1 * word_vector(text, 64) / 8.0 for text in texts]
        return normalise(FakeEncoder(64).encode_texts(texts) + np.array(noise))

    options = replace(QUICK, margin=0.1)
    [chains] = advance_together([search_locally(query, "word0", terms_of(texts, query), at_most(99), options)], drafted)
    true = [round(cosine(each.text, target), 6) for each in chains]
    assert true[0] < max(true), "the drafts' order is right, and nothing to be mended"
    assert abs(chains[0].score - true[0]) > 1e-4
    [found] = advance_together([choose_again(query, "word0", texts, chains)], Counting())
    assert found.text == chains[true.index(max(true))].text
    assert found.score == pytest.approx(max(true), abs=2e-6)
    assert sum(found.gains) == pytest.approx(found.score, abs=1e-6)


def test_of_equals_the_first_is_chosen() -> None:
    query = FakeEncoder(64).encode_texts(["word1 word2"])[0]
    orders = [Chain(columns, text, 0.0, 0.0, None) for columns, text in (((1, 0), "b, a"), ((0, 1), "a, b"))]
    for chains in (orders, orders[::-1]):
        [found] = advance_together([choose_again(query, "", ["a", "b"], chains)], Counting())
        assert found.columns == chains[0].columns


def test_the_best_terms_are_of_different_keys_and_allowed() -> None:
    texts = ["a dog", "dog", "Dog!", "cat", "!", "bird"]
    values = np.array([0.1, 0.9, 0.8, 0.7, 1.0, 0.5])
    allowed = np.array([1, 1, 1, 1, 1, 0], bool)
    terms = Terms.of(texts, np.zeros((6, 2), np.float32), values.astype(np.float32), allowed)
    assert terms.best(values, 5) == [1, 3]
    assert terms.best(values, 1) == [1]
    assert replace(terms, key=str.strip).best(values, 3) == [1, 2, 4]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 45))
def test_the_best_terms_are_those_of_a_full_sort(values: list[int], size: int) -> None:
    texts = [f"term{i % 30}" for i in range(len(values))]
    allowed = np.arange(len(values)) % 7 != 3
    terms = Terms.of(texts, np.zeros((len(values), 2), np.float32), np.array(values, np.float32), allowed)
    first: dict[str, int] = {}
    for row in sorted(np.flatnonzero(allowed).tolist(), key=lambda row: (-values[row], row)):
        first.setdefault(texts[row], row)
    assert terms.best(np.array(values, np.float64), size) == sorted(list(first.values())[:size])


def test_exchange_memory_offers_the_least_and_bars_what_moved() -> None:
    memory = ExchangeMemory()
    memory.learn([7, 8, 9], [0.3, 0.1, 0.2])
    assert memory.weakest([7, 8, 9], 2) == [1, 2]
    memory.move([7, 8, 9], [7, 9, 4])
    assert sorted(memory.barred()) == [4, 8]
    assert memory.weakest([7, 9, 4], 9) == [1, 0], "what has just come must stay a while"
    for _ in range(SETTLING):
        memory.move([7, 9, 4], [7, 9, 4])
    assert memory.barred() == [8]
    assert memory.weakest([7, 9, 4], 1) == [2], "what was never tried comes first"
    for _ in range(TENURE - SETTLING):
        memory.move([], [])
    assert memory.barred() == []
