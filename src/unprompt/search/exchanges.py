"""Which fragments of a chain may be exchanged next, for a search that also goes on from a worse chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TENURE = 6
"""Rounds for which a fragment that was dropped may not come back."""

SETTLING = 3
"""Rounds for which a fragment that was taken in may not be dropped."""


class ExchangeMemory:
    """What a tabu search (Glover, 1989) remembers: what each fragment was last worth, and what was just moved.

    The worth of a fragment changes little as the rest of the chain changes, so each round need only try to do without
    those that were worth least when last tried.
    """

    def __init__(self) -> None:
        self._worth: dict[int, float] = {}
        self._until: dict[int, int] = {}  # fragment -> the last round in which it stays where it is
        self._round = 0

    def learn(self, columns: Iterable[int], worth: Iterable[float]) -> None:
        """Takes in what the chain's value fell by without each of these fragments."""
        self._worth.update(zip(columns, worth, strict=True))

    def weakest(self, columns: Sequence[int], count: int) -> list[int]:
        """Positions of the `count` fragments of a chain worth least, of those that may go; equal ones in its order.

        What was never tried is worth 0.
        """
        free = [i for i, column in enumerate(columns) if self._until.get(column, 0) <= self._round]
        return sorted(free, key=lambda i: self._worth.get(columns[i], 0.0))[:count]

    def barred(self) -> list[int]:
        """The fragments that may not be moved yet."""
        return [column for column, until in self._until.items() if until > self._round]

    def move(self, before: Sequence[int], after: Sequence[int]) -> None:
        """Ends a round in which the chain with the first fragments became that with the second."""
        for column in before:
            if column not in after:
                self._until[column] = self._round + 1 + TENURE
        for column in after:
            if column not in before:
                self._until[column] = self._round + 1 + SETTLING
        self._round += 1
