"""Rules on next-token log-probabilities: which tokens may follow, the best few, and a draw among the likely ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCKED = float("-inf")


def block_tokens(log_probabilities: Tensor, tokens: Sequence[int]) -> Tensor:
    """Forbids some tokens to all rows of (N, V); the rest is not scaled up."""
    if not tokens:
        return log_probabilities
    columns = torch.tensor(list(tokens), device=log_probabilities.device)
    return log_probabilities.index_fill(1, columns, BLOCKED)


def block_ngrams(log_probabilities: Tensor, written: Tensor, n: int) -> Tensor:
    """Forbids each row every token that would complete an n-gram it has already written (Paulus et al., 2018).

    Args:
        log_probabilities: (N, V).
        written: (N, T) int64, the tokens so far.
        n: 0 blocks nothing, 1 every token that was written.

    """
    if n <= 0 or written.shape[1] < n:
        return log_probabilities
    ngrams = written.unfold(1, n, 1)  # (N, T - n + 1, n)
    repeats = (ngrams[..., : n - 1] == written[:, None, written.shape[1] - n + 1 :]).all(dim=-1)
    rows, places = repeats.nonzero(as_tuple=True)
    blocked = log_probabilities.clone()
    blocked[rows, ngrams[rows, places, n - 1]] = BLOCKED
    return blocked


def block_runs(log_probabilities: Tensor, written: Tensor, most: int) -> Tensor:
    """Forbids each row the token that would write some piece once more than ``most`` times in a row.

    Unlike a blocked n-gram, a piece may come back later: "a photo of a dog, a photo of a dog" is no loop.

    Args:
        log_probabilities: (N, V).
        written: (N, T) int64, the tokens so far.
        most: 0 blocks nothing, 1 lets no piece follow itself.

    """
    if most <= 0:
        return log_probabilities
    count = written.shape[1]
    blocked = log_probabilities
    for length in range(1, (count + 1) // (most + 1) + 1):
        # The token that is next in the piece ends the run if the length * most - 1 before it already repeat.
        places = length * most - 1
        same = written[:, count - places :] == written[:, count - places - length : count - length]
        rows = same.all(dim=1).nonzero()[:, 0]
        if len(rows):
            blocked = blocked.clone() if blocked is log_probabilities else blocked
            blocked[rows, written[rows, count - length]] = BLOCKED
    return blocked


def best(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (N, W), largest first, equal ones by their place: values and places, each (N, k).

    `torch.topk` leaves open which of equal values it takes, and in which order.
    """
    k = min(k, values.shape[1])
    # One more than asked for shows whether the cut went between equal values.
    top, places = values.topk(min(k + 1, values.shape[1]), dim=1)
    if top.shape[1] > k and bool((top[:, k - 1] == top[:, k]).any()):
        top, places = values.sort(dim=1, descending=True, stable=True)
    top, places = top[:, :k], places[:, :k]
    by_place = places.argsort(dim=1)
    top, places = top.gather(1, by_place), places.gather(1, by_place)
    by_value = top.argsort(dim=1, descending=True, stable=True)
    return top.gather(1, by_value), places.gather(1, by_value)


def draw_top_p(log_probabilities: Tensor, uniform: Tensor, *, top_p: float, temperature: float) -> Tensor:
    """Draws one token a row from the fewest tokens that hold ``top_p`` of the probability (Holtzman et al., 2020).

    Args:
        log_probabilities: (N, V); what is blocked is never drawn.
        uniform: (N,) in [0, 1), which decides the draw.
        top_p: in (0, 1]; the likeliest token always stays.
        temperature: above 0; below 1 sharpens.

    Returns:
        (N,) int64; equal probabilities are taken in the order of their tokens.
    """
    probabilities, tokens = (log_probabilities / temperature).softmax(dim=1).sort(dim=1, descending=True, stable=True)
    before = probabilities.cumsum(dim=1) - probabilities
    kept = probabilities.masked_fill(before >= top_p, 0.0)
    kept[:, 0] = probabilities[:, 0]
    cumulative = kept.cumsum(dim=1)
    drawn = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(dim=1)
    last = ((kept > 0).sum(dim=1) - 1).clamp(min=0)  # rounding must not draw beyond what was kept
    return tokens.gather(1, torch.minimum(drawn, last)[:, None])[:, 0]


def repetition(tokens: Sequence[int], n: int = 1) -> float:
    """The share of a text's n-grams that stood in it before: 0 for none (or no n-gram), towards 1 for a loop."""
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def loops(tokens: Sequence[int], times: int = 3) -> bool:
    """Whether some run of tokens follows itself until it has been written ``times`` times or more in a row."""
    for length in range(1, len(tokens) // times + 1):
        same = 0  # how many tokens in a row equal the one `length` before
        for i in range(length, len(tokens)):
            same = same + 1 if tokens[i] == tokens[i - length] else 0
            if same >= length * (times - 1):
                return True
    return False
