from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from unprompt.encoders.parallel import map_side_by_side


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_pieces_run_in_order_each_with_one_core(threads: int) -> None:
    meeting = threading.Barrier(threads)  # passes only when all threads work at the same time

    def piece(number: int) -> tuple[int, int]:
        meeting.wait(timeout=10)
        torch.ones(200_000).sum()  # an operation that torch would split
        return number, torch.get_num_threads()

    assert map_side_by_side(piece, range(2 * threads)) == [(number, 1) for number in range(2 * threads)]


def test_the_caller_and_later_threads_keep_their_cores(threads: int) -> None:
    map_side_by_side(lambda item: item, range(4))
    assert torch.get_num_threads() == threads
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [threads]


def test_an_error_reaches_the_caller(threads: int) -> None:
    def piece(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        map_side_by_side(piece, range(4))
    assert map_side_by_side(str, [1]) == ["1"]
