"""Writing captions token by token with any `Decodable`: greedily, by drawing, or by beam search.

All three return, for each picture, hypotheses with the model's own log-probability: what blocking or diversity forbids
is left out, never made up for, so scores of different settings compare. Hypotheses are ordered by their score

    score(y) = log p(y) / |y|^length_penalty

where |y| counts the end-of-text too: 0 is the log-probability itself, 1 its mean over the tokens. Equal scores are
ordered by their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unprompt.captioners.interface import CaptionerError, Decodable, State
from unprompt.captioners.sampling import block_ngrams, block_runs, block_tokens, draw_top_p

Choose = Callable[[Tensor, int, Tensor], Tensor]
"""(log-probabilities (N, V), position, rows (N,) of those asked for at the start) -> tokens (N,)."""


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """How captions are written.

    Attributes:
        begin: the token that a caption starts from; it is not part of it.
        end: the token that ends one; it is not part of it either.
        forbidden: tokens that are never written, such as padding and the beginning itself.
        max_tokens: most tokens of a caption, the end counted; one that has no end by then is cut there.
        min_tokens: fewest tokens before the end.
        no_repeat_ngram: n-grams of this length are written once; 0 for no such rule.
        max_run: most times that a piece of any length is written in a row, 0 for no such rule: 2 forbids all that
            `sampling.loops` finds.
        length_penalty: see the module; 0 and above.
        num_beams: captions kept at every step, and returned, by beam search.
        num_groups: divides ``num_beams``; more than one makes the beams diverse, see `decode_beam`.
        diversity: what a token loses for each earlier group that writes it at the same place.
        early_stop: end a picture's search as soon as every group has ended as many captions as it has beams;
            otherwise it goes on until no caption that is still written could come out better.
    """

    begin: int
    end: int
    forbidden: tuple[int, ...] = ()
    max_tokens: int = 31
    min_tokens: int = 0
    no_repeat_ngram: int = 0
    max_run: int = 0
    length_penalty: float = 1.0
    num_beams: int = 5
    num_groups: int = 1
    diversity: float = 0.5
    early_stop: bool = True

    def __post_init__(self) -> None:
        """Rejects what cannot be done.

        Raises:
            CaptionerError: a value is out of range.
        """
        for name in ("max_tokens", "num_beams", "num_groups"):
            if getattr(self, name) < 1:
                raise CaptionerError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("length_penalty", "diversity", "no_repeat_ngram", "max_run", "min_tokens"):
            if not getattr(self, name) >= 0:
                raise CaptionerError(f"{name} is {getattr(self, name)}: give 0 or more")
        if self.num_beams % self.num_groups:
            raise CaptionerError(f"{self.num_beams} beams do not divide into {self.num_groups} groups: use a multiple")
        if self.end in self.forbidden:
            raise CaptionerError(f"token {self.end} ends captions and is forbidden: allow it")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A caption as tokens.

    Attributes:
        tokens: without begin and end.
        log_probability: natural logarithm, of the tokens and the end.
        score: what hypotheses are ordered by, see the module.
        finished: whether it ended by itself.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    finished: bool


def make_hypothesis(tokens: Sequence[int], log_probability: float, config: DecodeConfig) -> Hypothesis:
    """A hypothesis of written tokens, which may end with the end-of-text."""
    finished = bool(tokens) and tokens[-1] == config.end
    score = log_probability / max(1, len(tokens)) ** config.length_penalty
    return Hypothesis(tuple(tokens[:-1] if finished else tokens), log_probability, score, finished)


def ordered(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Best first, equal scores by their tokens."""
    return sorted(hypotheses, key=lambda each: (-each.score, each.tokens, each.finished))


def allowed(logits: Tensor, written: Tensor, config: DecodeConfig) -> Tensor:
    """Log-probabilities (N, V) float32 of the next token, those that the configuration forbids at -inf.

    Args:
        logits: (N, V).
        written: (N, T) int64, the captions so far without their beginning.
        config: the rules.
    """
    log_probabilities = block_tokens(logits.float().log_softmax(dim=-1), config.forbidden)
    if written.shape[1] < config.min_tokens:
        log_probabilities = block_tokens(log_probabilities, [config.end])
    log_probabilities = block_ngrams(log_probabilities, written, config.no_repeat_ngram)
    return block_runs(log_probabilities, written, config.max_run)


def greedy(model: Decodable, state: State, config: DecodeConfig) -> list[list[Hypothesis]]:
    """Writes the likeliest token at every step, of equal ones the lowest: one hypothesis a picture."""
    return _write(model, state, config, lambda log_probabilities, position, rows: log_probabilities.argmax(dim=1))


def sample(
    model: Decodable,
    state: State,
    config: DecodeConfig,
    generator: torch.Generator,
    *,
    samples: int = 1,
    top_p: float = 0.9,
    temperature: float = 1.0,
) -> list[list[Hypothesis]]:
    """Draws captions, see `sampling.draw_top_p`.

    Args:
        model: what writes.
        state: of B pictures, at their start.
        config: the rules; what concerns beams is not used.
        generator: on the CPU; the draws of picture i do not depend on the pictures after it.
        samples: captions drawn for each picture; the same one may be drawn twice.
        top_p: in (0, 1].
        temperature: above 0.

    Returns:
        For each picture its samples, best first.

    Raises:
        CaptionerError: a value is out of range.
    """
    _check_sampling(samples, top_p, temperature)
    count = len(state.pictures)
    uniform = torch.rand(count * samples, config.max_tokens, generator=generator).to(state.pictures.device)
    rows = torch.arange(count, device=state.pictures.device).repeat_interleave(samples)

    def choose(log_probabilities: Tensor, position: int, rows: Tensor) -> Tensor:
        return draw_top_p(log_probabilities, uniform[rows, position], top_p=top_p, temperature=temperature)

    written = _write(model, model.reorder(state, rows), config, choose)
    each = [hypotheses[0] for hypotheses in written]
    return [ordered(each[start : start + samples]) for start in range(0, len(each), samples)]


def _check_sampling(samples: int, top_p: float, temperature: float) -> None:
    if not (0 < top_p <= 1 and temperature > 0 and samples >= 1):
        raise CaptionerError(
            f"top_p {top_p}, temperature {temperature}, samples {samples}: give 0 < top_p <= 1, temperature above 0, "
            "and 1 sample or more"
        )


@torch.no_grad()
def _write(model: Decodable, state: State, config: DecodeConfig, choose: Choose) -> list[list[Hypothesis]]:
    """Extends every row by a chosen token until it ends; ended rows leave the batch."""
    device = state.pictures.device
    done: list[list[Hypothesis]] = [[] for _ in state.pictures]
    rows = torch.arange(len(done), device=device)  # which of them each row of the batch is
    written = torch.empty(len(rows), 0, dtype=torch.long, device=device)
    total = torch.zeros(len(rows), device=device)
    tokens = torch.full_like(rows, config.begin)
    for position in range(config.max_tokens):
        if not len(rows):
            break
        logits, state = model.step(state, tokens)
        log_probabilities = allowed(logits, written, config)
        tokens = choose(log_probabilities, position, rows)
        gained = log_probabilities.gather(1, tokens[:, None])[:, 0]
        stuck = gained.isinf()  # no token is allowed any more: what is written stays, unfinished
        total = torch.where(stuck, total, total + gained)
        written = torch.cat([written, tokens[:, None]], dim=1)
        last = position + 1 == config.max_tokens
        ended = (tokens == config.end) | stuck
        for i in range(len(rows)) if last else ended.nonzero()[:, 0].tolist():
            text = written[i].tolist()
            done[rows[i]] = [make_hypothesis(text[:-1] if stuck[i] else text, float(total[i]), config)]
        if not last and bool(ended.any()):
            kept = (~ended).nonzero()[:, 0]
            state, rows, written, total, tokens = _select(model, state, kept, rows, written, total, tokens)
    return done


def _select(
    model: Decodable, state: State, kept: Tensor, rows: Tensor, written: Tensor, total: Tensor, tokens: Tensor
) -> tuple[State, Tensor, Tensor, Tensor, Tensor]:
    return model.reorder(state, kept), rows[kept], written[kept], total[kept], tokens[kept]
