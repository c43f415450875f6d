"""What captioners of small sizes are given: grids of four tokens of six numbers, neighbours of five, eleven words."""

from __future__ import annotations

import torch

from unprompt.captioners.interface import Memory


def memory(count: int = 3, neighbours: bool = True, seed: int = 1) -> Memory:
    """Up to three pictures, with two neighbours, one and none."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(count, 4, 6, generator=generator)
    if not neighbours:
        return Memory(grid)
    mask = torch.tensor([[True, True], [True, False], [False, False]])[:count]
    return Memory(grid, torch.randn(count, 2, 5, generator=generator), mask)


def tokens(count: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(0, 11, (count, length), generator=torch.Generator().manual_seed(2))
