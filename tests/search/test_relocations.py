from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fakes import normalise
from unprompt.search.chains import Chain, ChainScores
from unprompt.search.relocations import moved_to, relocate
from unprompt.search.rounds import advance_together
from unprompt.types import Embeddings

TEXTS = [f"word{i}" for i in range(7)]
QUERY = np.array([1.0, 0.0], dtype=np.float32)


def ordered(texts: Sequence[str]) -> Embeddings:
    """Embeddings that are nearer the query the fewer words stand before a lesser one."""
    ranks = [[int(word.strip(",")[4:]) for word in text.split()[1:]] for text in texts]
    wrong = [sum(a > b for i, a in enumerate(each) for b in each[i + 1 :]) for each in ranks]
    return normalise(np.array([[1.0, 0.05 * each] for each in wrong]))


def start(columns: tuple[int, ...]) -> tuple[ChainScores, Chain]:
    scores = ChainScores(QUERY, "start", TEXTS, None)
    return scores, advance_together([scores.encode([columns])], ordered)[0][0]


def run(
    columns: tuple[int, ...], failures: int = 60, newest: int | None = None, limit: int = 1000, words: int = 99
) -> Chain:
    scores, chain = start(columns)
    rng = np.random.default_rng(0)
    fits = lambda texts: [len(text.split()) <= words for text in texts]  # noqa: E731
    search = relocate(chain, newest, scores, fits, rng, failures=failures, together=4, limit=limit)
    return advance_together([search], ordered)[0]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True), st.data())
def test_a_move_keeps_the_others_in_their_order(columns: list[int], data: st.DataObject) -> None:
    places = st.integers(0, len(columns) - 1)
    origin, place = data.draw(places), data.draw(places)
    moved = moved_to(tuple(columns), origin, place)
    assert moved[place] == columns[origin]
    rest = [column for column in columns if column != columns[origin]]
    assert [column for column in moved if column != columns[origin]] == rest


def test_it_sorts_what_is_best_sorted() -> None:
    assert run((6, 3, 1, 0, 5, 2, 4)).columns == tuple(range(7))


def test_it_ends_where_nothing_is_to_be_moved() -> None:
    assert run((3,)).columns == (3,)
    assert run((0, 1, 2)).columns == (0, 1, 2)
    assert run((6, 3, 1, 0, 5, 2, 4), failures=0).columns == (6, 3, 1, 0, 5, 2, 4)


def test_no_round_begins_when_the_prompts_are_spent_nor_is_a_prompt_taken_that_does_not_fit() -> None:
    assert run((6, 3, 1, 0, 5, 2, 4), limit=1).columns == (6, 3, 1, 0, 5, 2, 4)
    assert run((6, 3, 1, 0, 5, 2, 4), words=3).columns == (6, 3, 1, 0, 5, 2, 4)


def test_the_newest_fragment_is_moved_most() -> None:
    scores, chain = start((0, 1, 2, 3, 4, 5, 6))
    asked: list[str] = []

    def listen(texts: Sequence[str]) -> Embeddings:
        asked.extend(texts)
        return ordered(texts)

    everything = lambda texts: [True] * len(texts)  # noqa: E731
    rng = np.random.default_rng(1)
    advance_together([relocate(chain, 6, scores, everything, rng, failures=16, together=4, limit=99)], listen)
    others_stand = [
        [word for word in text.replace(",", "").split()[1:] if word != "word6"] == TEXTS[:6] for text in asked
    ]
    assert sum(others_stand) >= 6  # the newest has six other places
