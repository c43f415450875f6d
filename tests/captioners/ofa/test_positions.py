from __future__ import annotations

import math

import pytest
import torch

from unprompt.captioners.ofa.positions import (
    MAX_TOKENS,
    drawn_positions,
    grid_buckets,
    grid_distances,
    grid_positions,
    stretched,
    token_buckets,
    token_distances,
)


def naive_bucket(offset: int, size: int) -> int:
    """One pair of token positions, as the paper's code describes it."""
    near = size // 2
    if abs(offset) <= near:
        return offset + size - 1
    log = math.log(abs(offset) / near) / math.log((MAX_TOKENS - 1) / near) * (near - 1)
    return int(math.copysign(math.ceil(log - 1e-6) + near, offset)) + size - 1


@pytest.mark.parametrize("size", [8, 256])
def test_token_buckets_are_those_of_each_pair(size: int) -> None:
    buckets = token_buckets(size)
    assert buckets.shape == (MAX_TOKENS, MAX_TOKENS)
    for first, second in [(0, 0), (5, 2), (2, 5), (0, 4), (200, 0), (0, 1000), (1023, 0), (700, 12), (0, 128)]:
        assert int(buckets[first, second]) == naive_bucket(first - second, size)
    assert 0 <= int(buckets.min()) <= int(buckets.max()) < token_distances(size)


def test_far_tokens_share_buckets_and_near_ones_do_not() -> None:
    row = token_buckets(256)[:, 0].tolist()
    assert len(set(row[:129])) == 129
    assert row == sorted(row)
    assert len(set(row)) < MAX_TOKENS / 2


@pytest.mark.parametrize("size", [1, 3, 5])
def test_grid_buckets_tell_every_offset_apart(size: int) -> None:
    buckets = grid_buckets(size)
    cells = [(row, column) for row in range(size) for column in range(size)]
    offsets: dict[int, tuple[int, int]] = {}
    for i, (row, column) in enumerate(cells, start=1):
        for j, (other_row, other_column) in enumerate(cells, start=1):
            offset = (row - other_row, column - other_column)
            assert offsets.setdefault(int(buckets[i, j]), offset) == offset
    assert len(offsets) == (2 * size - 1) ** 2
    count = grid_distances(size)
    assert set(offsets) == set(range(count - 3))
    assert (int(buckets[0, 0]), int(buckets[1, 0]), int(buckets[0, 1])) == (count - 1, count - 2, count - 3)


def test_a_grid_s_positions_lie_in_the_largest_grid() -> None:
    assert grid_positions(2, 3, bucket_size=10).tolist() == [1, 2, 3, 11, 12, 13]


def test_drawn_positions_are_one_more_than_cells_and_padded() -> None:
    places = drawn_positions(16, bucket_size=42).tolist()
    assert places[:5] == [0, 1, 2, 43, 44]
    assert places[5:] == [1024] * 768


def test_a_stretched_grid_keeps_what_is_linear() -> None:
    ramp = torch.arange(4.0)[None, :, None].expand(4, 4, 2)
    grown = stretched(ramp, 8, 8).view(8, 8, 2)
    torch.testing.assert_close(grown[3, 1:7, 0], torch.arange(0.25, 3.0, 0.5))
