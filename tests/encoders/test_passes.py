from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unprompt.encoders.passes import ASSUMED_CORES, LEAST_TOKENS, TOKEN_BUDGET, batches, deal, passes


@pytest.mark.parametrize("stand_alone", [True, False])
def test_few_texts_keep_all_cores_busy(monkeypatch: pytest.MonkeyPatch, stand_alone: bool) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    lengths = [70, 75, 80, 72, 66, 71, 78, 74, 79]
    divided = passes(lengths, stand_alone)
    assert sorted(i for batch in divided for i in batch) == list(range(9))
    assert len(divided) == (3 if stand_alone else ASSUMED_CORES)
    assert max(sum(lengths[i] for i in batch) for batch in divided) <= 240
    assert len(passes([40, 4, 4], stand_alone)) == 1, "too few to read the weights for"
    assert passes([], stand_alone) == []


@pytest.mark.parametrize("cores", [1, 4])
def test_many_texts_stay_with_those_of_their_length(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    lengths = np.random.default_rng(0).integers(2, 60, 3000).tolist()
    divided = passes(lengths, True)
    assert sorted(i for batch in divided for i in batch) == list(range(3000))
    sizes = [sum(lengths[i] for i in batch) for batch in divided]
    assert max(sizes) <= TOKEN_BUDGET + LEAST_TOKENS
    assert min(sizes) >= LEAST_TOKENS
    assert sum(len({lengths[i] for i in batch}) for batch in divided) <= 58 + len(divided)


@given(st.lists(st.integers(2, 256), min_size=1, max_size=30), st.integers(1, 8))
def test_dealing_gives_no_core_much_more_than_its_share(lengths: list[int], count: int) -> None:
    dealt = deal(lengths, count)
    assert sorted(i for batch in dealt for i in batch) == list(range(len(lengths)))
    assert all([lengths[i] for i in batch] == sorted((lengths[i] for i in batch), reverse=True) for batch in dealt)
    loads = [sum(lengths[i] for i in batch) for batch in dealt]
    assert max(loads) <= sum(lengths) / count + max(lengths)


def test_batches_cover_every_text_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 500).tolist()
    found = list(batches(lengths, 128))
    assert sorted(i for batch in found for i in batch) == list(range(500))
    assert all(sum(lengths[i] for i in batch) <= 128 for batch in found)
    assert list(batches([300, 2], 128)) == [[0], [1]]
