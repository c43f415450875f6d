"""Decoding that knows the neighbours: their prompts propose next tokens, mixed with any captioner's own.

As in kNN-LM (Khandelwal et al., "Generalization through Memorization", 2020) the distribution of the next token is

    p(y) = (1 - lambda) p_model(y) + lambda p_knn(y)

but the store is small: the prompts of the K nearest pictures. So instead of comparing hidden states, every place in
them is compared with what has been written: the places where the longest end of it stands as well (at most
``max_order`` tokens) propose the tokens that follow there, each with its neighbour's weight. Where not even the last
token stands in any neighbour, the model speaks alone.

The other way to tell a captioner its neighbours is in training, as tokens it attends to: see
`attention.MemoryProjection`; both can be used together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unprompt.captioners.interface import CaptionerError, Decodable, State, reorder

TOKENS, WEIGHTS, MATCHES = "neighbour.tokens", "neighbour.weights", "neighbour.matches"
"""What is added to a state: tokens (N, K, L + 1) int64 and weights (N, K) fixed, matches (N, K, L + 1) moving."""
NOTHING = -1
"""Stands for no token."""


@dataclass(frozen=True, slots=True)
class NeighbourMixture:
    """How much neighbours say.

    Attributes:
        share: lambda, in [0, 1).
        temperature: neighbours weigh softmax(cosine / temperature); above 0, and small: cosines lie close together.
        max_order: longer matches count as this long; 1 and above.
        min_order: where the longest match is shorter, the model speaks alone; 0 lets the neighbours' tokens be
            proposed anywhere, by how often they have them.
    """

    share: float = 0.25
    temperature: float = 0.1
    max_order: int = 4
    min_order: int = 1

    def __post_init__(self) -> None:
        """Rejects what cannot be done.

        Raises:
            CaptionerError: a value is out of range.
        """
        if not (0 <= self.share < 1 and self.temperature > 0):
            raise CaptionerError(
                f"share {self.share}, temperature {self.temperature}: give 0 <= share < 1 and a temperature above 0"
            )
        if not 0 <= self.min_order <= self.max_order or self.max_order < 1:
            raise CaptionerError(
                f"min_order {self.min_order}, max_order {self.max_order}: give 0 <= min_order <= max_order, from 1"
            )


class NeighbourDecoder:
    """A `Decodable` around another one: decode with it in the model's place, from a state that `start` made."""

    def __init__(self, model: Decodable, mixture: NeighbourMixture | None = None) -> None:
        self.model = model
        self.mixture = mixture or NeighbourMixture()

    def start(
        self, state: State, tokens: Sequence[Sequence[Sequence[int]]], cosines: Sequence[Sequence[float]] | None = None
    ) -> State:
        """Tells the pictures of a state their neighbours.

        Args:
            state: the model's, of B pictures at their start.
            tokens: for each picture each neighbour's prompt in the model's tokens, from the beginning-of-text to the
                end-of-text; pictures may have different numbers of neighbours, also none.
            cosines: of each neighbour with the picture; None weighs all alike.

        Raises:
            CaptionerError: the numbers of pictures or neighbours differ.
        """
        count = len(state.pictures)
        cosines = [[0.0] * len(each) for each in tokens] if cosines is None else cosines
        if len(tokens) != count or [len(each) for each in tokens] != [len(each) for each in cosines]:
            raise CaptionerError(
                f"{count} pictures have {len(tokens)} lists of neighbours and {len(cosines)} of cosines: give one each"
            )
        most = max((len(each) for each in tokens), default=0)
        longest = max((len(text) for each in tokens for text in each), default=0)
        padded = torch.full((count, most, longest + 1), NOTHING, dtype=torch.long)
        scores = torch.full((count, most), float("-inf"))
        for row, (texts, values) in enumerate(zip(tokens, cosines, strict=True)):
            for place, (text, value) in enumerate(zip(texts, values, strict=True)):
                padded[row, place, : len(text)] = torch.tensor(list(text), dtype=torch.long)
                scores[row, place] = float(value)
        # A picture without neighbours has a row of -inf, whose softmax is nan.
        weights = (scores / self.mixture.temperature).softmax(dim=1).nan_to_num(0.0)
        device = state.pictures.device
        fixed = {**state.fixed, TOKENS: padded.to(device), WEIGHTS: weights.to(device)}
        matches = torch.zeros(padded.shape, dtype=torch.long, device=device)
        return State(fixed, {**state.moving, MATCHES: matches}, state.pictures)

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`; the logits are the logarithm of the mixture."""
        logits, after = self.model.step(_without(state), tokens)
        matches = extend_matches(state.moving[MATCHES], state.fixed[TOKENS], tokens, self.mixture.max_order)
        proposed = propose(
            matches, state.fixed[TOKENS], state.fixed[WEIGHTS], logits.shape[1], self.mixture.min_order
        )  # (N, V)
        share = self.mixture.share * (proposed.sum(dim=1, keepdim=True) > 0)
        mixed = (1 - share) * logits.float().softmax(dim=1) + share * proposed
        fixed = {**after.fixed, TOKENS: state.fixed[TOKENS], WEIGHTS: state.fixed[WEIGHTS]}
        return mixed.log(), State(fixed, {**after.moving, MATCHES: matches}, after.pictures)

    def reorder(self, state: State, rows: Tensor) -> State:
        """See `Decodable.reorder`."""
        inner = self.model.reorder(_without(state), rows)
        own = reorder(
            State(
                {name: state.fixed[name] for name in (TOKENS, WEIGHTS)},
                {MATCHES: state.moving[MATCHES]},
                state.pictures,
            ),
            rows,
        )
        return State({**inner.fixed, **own.fixed}, {**inner.moving, **own.moving}, inner.pictures)


def extend_matches(matches: Tensor, neighbours: Tensor, tokens: Tensor, max_order: int) -> Tensor:
    """How long the ends of the texts match before each place of their neighbours, after one more token.

    Args:
        matches: (N, K, L + 1) int64, before it: at j, how many tokens before place j equal the end of the text.
        neighbours: (N, K, L + 1) int64, `NOTHING` after their end.
        tokens: (N,) int64, the new ends.
        max_order: where counting stops.
    """
    grown = torch.zeros_like(matches)
    same = neighbours[..., :-1] == tokens[:, None, None]
    grown[..., 1:] = torch.where(same, matches[..., :-1] + 1, 0).clamp(max=max_order)
    return grown


def propose(matches: Tensor, neighbours: Tensor, weights: Tensor, vocabulary: int, min_order: int) -> Tensor:
    """The distribution of the next token after the longest matches.

    Args:
        matches: (N, K, L + 1), see `extend_matches`.
        neighbours: (N, K, L + 1) int64, `NOTHING` after their end.
        weights: (N, K) float.
        vocabulary: V.
        min_order: shorter matches propose nothing.

    Returns:
        (N, V) float32, rows that sum to 1, or to 0 where nothing is proposed.
    """
    proposed = torch.zeros(len(matches), vocabulary, device=matches.device)
    if not matches.shape[1]:
        return proposed
    there = (neighbours != NOTHING) & (weights > 0)[..., None]
    there[..., 0] = False  # nothing comes before the beginning, so no place proposes it
    longest = matches.masked_fill(~there, NOTHING).amax(dim=(1, 2), keepdim=True)
    speaking = there & (matches == longest) & (longest >= min_order)
    mass = torch.where(speaking, weights[..., None], 0.0).flatten(1)
    proposed.scatter_add_(1, neighbours.clamp(min=0).flatten(1), mass)
    total = proposed.sum(dim=1, keepdim=True)
    return proposed / torch.where(total > 0, total, 1.0)


def _without(state: State) -> State:
    """The state as the inner model made it."""
    fixed = {name: part for name, part in state.fixed.items() if name not in (TOKENS, WEIGHTS)}
    return State(fixed, {name: part for name, part in state.moving.items() if name != MATCHES}, state.pictures)
