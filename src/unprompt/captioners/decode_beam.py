"""Beam search over a batch of pictures, with diverse groups.

Groups are Vijayakumar et al., "Diverse Beam Search" (2016), with Hamming diversity: at each step the groups choose one
after the other, and a token loses ``diversity`` for each beam of an earlier group that has just chosen it. The loss
decides what a group keeps and no more: the log-probabilities that are carried on and returned are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unprompt.captioners.decode import DecodeConfig, Hypothesis, allowed, make_hypothesis, ordered
from unprompt.captioners.interface import Decodable, State
from unprompt.captioners.sampling import best


@dataclass(slots=True)
class Beams:
    """All captions that are being written: P pictures still searched, G groups of K beams each, N = P * G * K rows."""

    pictures: list[int]
    """Which picture each of the P is, in the order of the call."""
    written: Tensor
    """(N, T) int64."""
    log_probability: Tensor
    """(P, G, K) float32; -inf where there is no caption."""
    ended: list[list[list[Hypothesis]]] = field(default_factory=list)
    """[picture of the call][group]: the K best ended captions, best first."""


@torch.no_grad()
def beam_search(model: Decodable, state: State, config: DecodeConfig) -> list[list[Hypothesis]]:
    """Searches the best captions.

    Args:
        model: what writes.
        state: of B pictures, at their start.
        config: the rules. With ``num_beams`` no smaller than the number of texts that can be written, and one group,
            the search is exhaustive.

    Returns:
        For each picture up to ``num_beams`` different hypotheses, best first; none where the rules allow no text.
    """
    count, groups, size = len(state.pictures), config.num_groups, config.num_beams // config.num_groups
    device = state.pictures.device
    if not count:
        return []
    start = torch.full((count, groups, size), float("-inf"), device=device)
    start[:, :, 0] = 0.0  # the beams of a group start the same: only the first counts
    written = torch.empty(count * config.num_beams, 0, dtype=torch.long, device=device)
    beams = Beams(list(range(count)), written, start, [[[] for _ in range(groups)] for _ in range(count)])
    state = model.reorder(state, torch.arange(count, device=device).repeat_interleave(config.num_beams))
    tokens = torch.full((len(written),), config.begin, dtype=torch.long, device=device)
    for position in range(config.max_tokens):
        logits, state = model.step(state, tokens)
        log_probabilities = allowed(logits, beams.written, config)
        rows = _extend(beams, log_probabilities, config)
        if position + 1 == config.max_tokens:
            break
        kept = _drop_settled(beams, config)
        if not beams.pictures:
            break
        state = model.reorder(state, rows if kept is None else rows[kept])
        tokens = beams.written[:, -1]
    return _results(beams, config)


def _extend(beams: Beams, log_probabilities: Tensor, config: DecodeConfig) -> Tensor:
    """Replaces all beams by their best extensions and collects what ends; returns each new beam's old row, (N,)."""
    pictures, groups, size = beams.log_probability.shape
    vocabulary = log_probabilities.shape[1]
    totals = log_probabilities.view(pictures, groups, size, vocabulary) + beams.log_probability[..., None]
    used = torch.zeros(pictures, 1, vocabulary, device=totals.device)  # by the groups before
    first = torch.arange(pictures, device=totals.device)[:, None] * groups * size
    rows, tokens, sums = [], [], []
    for group in range(groups):
        total = totals[:, group]  # (P, K, V)
        ranked = total - config.diversity * used
        cut = best(ranked.flatten(1), size)[0][:, -1:]
        # An end counts only among the best K extensions: every text can end anywhere with some small probability.
        ending = total[:, :, config.end].masked_fill(ranked[:, :, config.end] < cut, float("-inf"))
        _collect(beams, group, ending.tolist(), config)
        ranked[:, :, config.end] = float("-inf")
        values, places = best(ranked.flatten(1), size)  # (P, K)
        parents, chosen = places // vocabulary, places % vocabulary
        # Where fewer tokens are allowed than there are beams, some beams are none.
        gained = total.flatten(1).gather(1, places).masked_fill(values.isinf(), float("-inf"))
        used.squeeze(1).scatter_add_(1, chosen, gained.isfinite().to(used.dtype))
        rows.append(first + group * size + parents)
        tokens.append(chosen)
        sums.append(gained)
    beams.log_probability = torch.stack(sums, dim=1)
    flat = torch.stack(rows, dim=1).flatten()
    beams.written = torch.cat([beams.written[flat], torch.stack(tokens, dim=1).flatten()[:, None]], dim=1)
    return flat


def _collect(beams: Beams, group: int, ending: list[list[float]], config: DecodeConfig) -> None:
    """Keeps the captions that end now, (P, K) log-probabilities or -inf, if they are among the best K of a group."""
    size = beams.log_probability.shape[2]
    for place, picture in enumerate(beams.pictures):
        ended = beams.ended[picture][group]
        for beam, value in enumerate(ending[place]):
            if value > float("-inf"):
                row = (place * config.num_groups + group) * size + beam
                ended.append(make_hypothesis([*beams.written[row].tolist(), config.end], value, config))
        ended[:] = ordered(ended)[:size]


def _drop_settled(beams: Beams, config: DecodeConfig) -> Tensor | None:
    """Leaves out the pictures whose search is over; returns the rows that stay, None for all."""
    going = [place for place in range(len(beams.pictures)) if not _settled(beams, place, config)]
    if len(going) == len(beams.pictures):
        return None
    places = torch.tensor(going, dtype=torch.long, device=beams.written.device)
    rows = torch.arange(len(beams.written), device=places.device).view(len(beams.pictures), -1)[places].flatten()
    beams.pictures = [beams.pictures[place] for place in going]
    beams.written, beams.log_probability = beams.written[rows], beams.log_probability[places]
    return rows


def _settled(beams: Beams, place: int, config: DecodeConfig) -> bool:
    """Whether nothing that a picture still writes can be among its best."""
    for group, live in enumerate(beams.log_probability[place].tolist()):
        ended = beams.ended[beams.pictures[place]][group]
        highest = max(live)
        if highest == float("-inf"):
            continue
        if len(ended) < len(live):
            return False
        # A log-probability only falls, and is divided by no more than this.
        within_reach = highest / config.max_tokens**config.length_penalty
        if not config.early_stop and within_reach >= ended[-1].score:
            return False
    return True


def _results(beams: Beams, config: DecodeConfig) -> list[list[Hypothesis]]:
    """What ended, and what was still being written at the last step, the best ``num_beams`` of each picture."""
    found = [[each for group in groups for each in group] for groups in beams.ended]
    values = beams.log_probability.flatten(1).tolist() if beams.pictures else []
    for place, picture in enumerate(beams.pictures):
        for beam, value in enumerate(values[place]):
            if value > float("-inf"):
                text = beams.written[place * config.num_beams + beam].tolist()
                found[picture].append(make_hypothesis(text, value, config))
    return [_different(hypotheses)[: config.num_beams] for hypotheses in found]


def _different(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """Best first; a text that several groups found stays once."""
    unique: dict[tuple[int, ...], Hypothesis] = {}
    for each in ordered(hypotheses):
        unique.setdefault(each.tokens, each)
    return list(unique.values())
