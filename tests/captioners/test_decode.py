"""Decoding against exhaustive enumeration on toy vocabularies, where every text can be listed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unprompt.captioners.decode import DecodeConfig, Hypothesis, greedy, sample
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, State, reorder
from unprompt.captioners.sampling import best, block_ngrams, block_runs, draw_top_p, loops, repetition

BEGIN, END = 0, 1


class Toy:
    """Logits that depend on the picture, the position and all tokens before, from a table of random numbers."""

    def __init__(self, pictures: int, vocabulary: int, seed: int, scale: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(pictures, 97, vocabulary, generator=generator) * scale
        self.vocabulary = vocabulary
        self.rows_read = 0

    def start(self, pictures: list[int]) -> State:
        numbers = torch.tensor(pictures, dtype=torch.long)
        return State({"table": self.table[numbers]}, {"hash": torch.zeros(len(numbers)).long()}, numbers)

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        self.rows_read += len(tokens)
        hashed = (state.moving["hash"] * 31 + tokens * 7 + 1) % 97
        rows = torch.arange(len(tokens))
        return state.fixed["table"][rows, hashed], state._replace(moving={"hash": hashed})

    def reorder(self, state: State, rows: Tensor) -> State:
        return reorder(state, rows)

    def log_probabilities(self, picture: int, written: tuple[int, ...]) -> list[float]:
        """Read anew from the start: no cache, no batch."""
        state = self.start([picture])
        for token in (BEGIN, *written):
            logits, state = self.step(state, torch.tensor([token]))
        return logits[0].log_softmax(dim=0).tolist()


def permitted(written: tuple[int, ...], token: int, config: DecodeConfig) -> bool:
    n = config.no_repeat_ngram
    text = (*written, token)
    seen = [text[i : i + n] for i in range(len(text) - n)] if n else []
    early = token == END and len(written) < config.min_tokens
    return token not in config.forbidden and not early and not (n and len(text) >= n and text[-n:] in seen)


def every_text(toy: Toy, picture: int, config: DecodeConfig) -> list[Hypothesis]:
    """All texts that can be written, best first, scored one by one."""
    found = []
    words = [token for token in range(toy.vocabulary) if token != END]

    def extend(written: tuple[int, ...], total: float) -> None:
        if len(written) == config.max_tokens:
            found.append(Hypothesis(written, total, total / len(written) ** config.length_penalty, False))
            return
        values = toy.log_probabilities(picture, written)
        if permitted(written, END, config):
            value = total + values[END]
            found.append(Hypothesis(written, value, value / (len(written) + 1) ** config.length_penalty, True))
        for token in words:
            if permitted(written, token, config):
                extend((*written, token), total + values[token])

    extend((), 0.0)
    return sorted(found, key=lambda each: -each.score)


def same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
        assert one.finished == other.finished


configs = st.builds(
    DecodeConfig,
    begin=st.just(BEGIN),
    end=st.just(END),
    forbidden=st.sampled_from([(), (BEGIN,)]),
    max_tokens=st.integers(1, 4),
    min_tokens=st.integers(0, 2),
    no_repeat_ngram=st.integers(0, 2),
    length_penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    num_beams=st.just(200),
    early_stop=st.just(False),
)


@given(config=configs, seed=st.integers(0, 99), vocabulary=st.integers(2, 4))
def test_wide_beam_is_exhaustive(config: DecodeConfig, seed: int, vocabulary: int) -> None:
    toy = Toy(2, vocabulary, seed)
    for picture, found in enumerate(beam_search(toy, toy.start([0, 1]), config)):
        expected = every_text(toy, picture, config)
        assert len(expected) <= 200
        same(found, expected)


@given(config=configs, seed=st.integers(0, 99), beams=st.integers(1, 6), groups=st.integers(1, 3), stop=st.booleans())
def test_beams_are_texts_with_their_own_scores(
    config: DecodeConfig, seed: int, beams: int, groups: int, stop: bool
) -> None:
    toy = Toy(1, 4, seed)
    config = replace(config, num_beams=beams * groups, num_groups=groups, early_stop=stop)
    known = {(each.tokens, each.finished): each for each in every_text(toy, 0, config)}
    (found,) = beam_search(toy, toy.start([0]), config)
    assert bool(found) == bool(known)
    assert len({each.tokens for each in found}) == len(found) <= beams * groups
    same(found, [known[each.tokens, each.finished] for each in found])
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def naive_beam(toy: Toy, picture: int, config: DecodeConfig) -> list[Hypothesis]:
    """Beam search as one writes it down, without batch, cache or early end."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[Hypothesis] = []
    for position in range(config.max_tokens):
        every = [
            (total + value, (*text, token))
            for total, text in live
            for token, value in enumerate(toy.log_probabilities(picture, text))
            if permitted(text, token, config)
        ]
        every.sort(reverse=True)
        for total, text in every[: config.num_beams]:
            if text[-1] == END:
                ended.append(Hypothesis(text[:-1], total, total / len(text) ** config.length_penalty, True))
        live = [each for each in every if each[1][-1] != END][: config.num_beams]
        if position + 1 == config.max_tokens:
            ended += [
                Hypothesis(text, total, total / len(text) ** config.length_penalty, False) for total, text in live
            ]
    return sorted(ended, key=lambda each: -each.score)[: config.num_beams]


@given(config=configs, seed=st.integers(0, 99), beams=st.integers(1, 5))
def test_narrow_beam_is_the_naive_one(config: DecodeConfig, seed: int, beams: int) -> None:
    toy = Toy(2, 5, seed)
    config = replace(config, num_beams=beams)
    for picture, found in enumerate(beam_search(toy, toy.start([0, 1]), config)):
        same(found, naive_beam(toy, picture, config))


@settings(max_examples=30)
@given(seed=st.integers(0, 99), groups=st.sampled_from([1, 2]), stop=st.booleans(), order=st.permutations(range(4)))
def test_a_picture_does_not_depend_on_its_batch(seed: int, groups: int, stop: bool, order: list[int]) -> None:
    toy = Toy(4, 6, seed)
    config = DecodeConfig(BEGIN, END, max_tokens=7, num_beams=4, num_groups=groups, early_stop=stop)
    together = beam_search(toy, toy.start(order), config)
    written = greedy(toy, toy.start(order), config)
    for row, picture in enumerate(order):
        assert beam_search(toy, toy.start([picture]), config) == [together[row]]
        assert greedy(toy, toy.start([picture]), config) == [written[row]]


@given(config=configs, seed=st.integers(0, 99))
def test_greedy_takes_the_likeliest(config: DecodeConfig, seed: int) -> None:
    toy = Toy(3, 5, seed)
    for picture, (found,) in enumerate(greedy(toy, toy.start([0, 1, 2]), config)):
        written: tuple[int, ...] = ()
        while len(written) < config.max_tokens:
            values = toy.log_probabilities(picture, written)
            options = [token for token in range(5) if permitted(written, token, config)]
            if not options or (token := max(options, key=lambda option: values[option])) == END:
                break
            written = (*written, token)
        assert found.tokens == written


@given(config=configs, seed=st.integers(0, 99))
def test_one_beam_that_stops_early_is_greedy(config: DecodeConfig, seed: int) -> None:
    toy = Toy(2, 5, seed)
    config = replace(config, num_beams=1, early_stop=True, no_repeat_ngram=0, min_tokens=0)
    assert beam_search(toy, toy.start([0, 1]), config) == greedy(toy, toy.start([0, 1]), config)


def test_the_search_goes_on_while_something_better_is_within_reach() -> None:
    """The empty text ends first, with log 0.52; "2" then reaches log(0.48) / 2, better by its length alone."""
    toy = Toy(1, 3, 0)
    toy.table.fill_(-50.0)
    toy.table[0, 1] = torch.tensor([0.0, 0.52, 0.48]).log().clamp(min=-50.0)  # after the beginning
    toy.table[0, (1 * 31 + 2 * 7 + 1) % 97, END] = 0.0
    config = DecodeConfig(BEGIN, END, max_tokens=2, num_beams=1, early_stop=False)
    assert beam_search(toy, toy.start([0]), config)[0][0].tokens == (2,)
    assert beam_search(toy, toy.start([0]), replace(config, early_stop=True))[0][0].tokens == ()
    assert beam_search(toy, toy.start([0]), replace(config, length_penalty=0.0))[0][0].tokens == ()


def test_diversity_moves_groups_apart_and_leaves_scores_alone() -> None:
    toy = Toy(1, 8, 5, scale=1.0)
    config = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=4, num_beams=4, num_groups=4, diversity=0.0)
    (alike,) = beam_search(toy, toy.start([0]), config)
    assert len(alike) == 1, "without diversity all groups find the same text"
    (diverse,) = beam_search(toy, toy.start([0]), replace(config, diversity=100.0))
    assert len(diverse) == 4
    assert len({each.tokens[0] for each in diverse if each.tokens}) >= 3
    assert alike[0] in diverse, "the first group is a plain search"
    for each in diverse:
        text = (*each.tokens, END) if each.finished else each.tokens
        true = sum(toy.log_probabilities(0, text[:i])[token] for i, token in enumerate(text))
        assert each.log_probability == pytest.approx(true, abs=1e-5)


def test_ended_pictures_leave_the_batch() -> None:
    toy = Toy(2, 4, 0)
    toy.table[0, :, END] = 50.0  # picture 0 ends at once
    toy.table[1, :, END] = -50.0
    config = DecodeConfig(BEGIN, END, max_tokens=10, num_beams=3)
    toy.rows_read = 0
    greedy(toy, toy.start([0, 1]), config)
    assert toy.rows_read == 2 + 9
    toy.rows_read = 0
    beam_search(toy, toy.start([0, 1]), replace(config, num_beams=1))
    assert toy.rows_read == 2 + 9


@settings(max_examples=8)
@given(seed=st.integers(0, 20))
def test_samples_follow_the_model(seed: int) -> None:
    toy = Toy(1, 3, seed, scale=1.0)
    config = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=2, length_penalty=0.0)
    (drawn,) = sample(toy, toy.start([0]), config, torch.Generator().manual_seed(seed), samples=4000, top_p=1.0)
    expected = every_text(toy, 0, config)
    mass = sum(torch.tensor([each.log_probability for each in expected]).exp().tolist())
    allowed_first = sum(torch.tensor(toy.log_probabilities(0, ()))[1:].exp().tolist())
    for each in expected:
        first, *rest = (*each.tokens, END) if each.finished else each.tokens
        probability = float(torch.tensor(toy.log_probabilities(0, ()))[first].exp()) / allowed_first
        for token in rest:
            values = torch.tensor(toy.log_probabilities(0, (first,))).exp()
            probability *= float(values[token] / values[1:].sum())
        share = sum(one.tokens == each.tokens and one.finished == each.finished for one in drawn) / len(drawn)
        assert share == pytest.approx(probability, abs=0.04)
    assert mass <= 1.0 + 1e-5


def test_samples_are_seeded_and_keep_to_their_picture() -> None:
    toy = Toy(3, 9, 3)
    config = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=8)

    def drawn(pictures: list[int], seed: int) -> list[list[Hypothesis]]:
        return sample(toy, toy.start(pictures), config, torch.Generator().manual_seed(seed), samples=3)

    assert drawn([0, 1, 2], 1) == drawn([0, 1, 2], 1)
    assert drawn([0, 1, 2], 1) != drawn([0, 1, 2], 2)
    assert drawn([0, 1, 2], 1)[:2] == drawn([0, 1], 1)
    before = drawn([0, 1], 1)[1]
    toy.table[0, :, END] = 50.0  # picture 0 now ends at once and leaves the batch
    assert drawn([0, 1], 1) == [[Hypothesis((), 0.0, 0.0, True)] * 3, before]


def test_top_p_keeps_the_fewest_tokens_that_hold_it() -> None:
    row = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    for top_p, kept in (
        (0.01, {1}),
        (0.5, {1}),
        (0.51, {1, 3}),
        (0.75, {1, 3}),
        (0.76, {1, 3, 2}),
        (1.0, {0, 1, 2, 3}),
    ):
        uniform = torch.linspace(0, 0.9999, 2001)
        drawn = draw_top_p(row.expand(2001, -1), uniform, top_p=top_p, temperature=1.0)
        assert set(drawn.tolist()) == kept
        if top_p == 0.74:
            assert (drawn == 1).float().mean() == pytest.approx(2 / 3, abs=0.01)
    sharp = draw_top_p(row.expand(2001, -1), uniform, top_p=1.0, temperature=0.1)
    assert (sharp == 1).float().mean() > 0.99


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("-inf")]), min_size=6, max_size=6), min_size=1),
    k=st.integers(1, 8),
)
def test_best_orders_equal_values_by_place(rows: list[list[float]], k: int) -> None:
    values, places = best(torch.tensor(rows), k)
    for row, value, place in zip(rows, values.tolist(), places.tolist(), strict=True):
        expected = sorted(range(6), key=lambda i: (-row[i], i))[:k]
        assert place == expected
        assert value == [row[i] for i in expected]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(0, 6))
def test_blocked_ngrams_are_those_written_before(written: list[list[int]], n: int) -> None:
    config = DecodeConfig(BEGIN, 9, no_repeat_ngram=n)
    blocked = block_ngrams(torch.zeros(len(written), 5), torch.tensor(written), n).isinf()
    for row, text in zip(blocked.tolist(), written, strict=True):
        assert row == [not permitted(tuple(text), token, config) for token in range(5)]


@given(st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(0, 3))
def test_blocked_runs_are_those_that_would_loop(written: list[list[int]], most: int) -> None:
    blocked = block_runs(torch.zeros(len(written), 4), torch.tensor(written), most).isinf()
    for row, text in zip(blocked.tolist(), written, strict=True):
        for token in range(4):
            # Only what the new token completes is its fault.
            ends = [*text, token][::-1]
            looped = most and any(
                ends[:n] * (most + 1) == ends[: n * (most + 1)] for n in range(1, len(ends) // (most + 1) + 1)
            )
            assert row[token] == bool(looped)


def test_blocked_runs_leave_other_scores_alone() -> None:
    scores = torch.randn(2, 3)
    before = scores.clone()
    blocked = block_runs(scores, torch.tensor([[1, 1], [1, 2]]), 2)
    assert blocked[0].isinf().tolist() == [False, True, False]
    assert torch.equal(blocked[1], before[1])
    assert torch.equal(scores, before)


def test_loops_are_blocked_and_measured() -> None:
    class Stuck(Toy):
        """A model that says 2, 3, 2, 3, ... as the paper's said "dishonor, dishonor"."""

        def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
            logits = torch.full((len(tokens), 6), -5.0)
            logits[torch.arange(len(tokens)), torch.where(tokens == 2, 3, 2)] = 5.0
            return logits, state

    toy = Stuck(1, 6, 0)
    config = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=12, early_stop=False)
    for write in (greedy, beam_search):
        (looped,) = write(toy, toy.start([0]), config)
        assert loops(looped[0].tokens)
        assert repetition(looped[0].tokens, 2) > 0.7
        (free,) = write(toy, toy.start([0]), replace(config, no_repeat_ngram=2))
        assert not any(loops(each.tokens) for each in free)
        assert all(repetition(each.tokens, 2) == 0 for each in free)
        (brief,) = write(toy, toy.start([0]), replace(config, max_run=2))
        assert brief[0].tokens[:4] == (2, 3, 2, 3)
        assert not any(loops(each.tokens) for each in brief)


@given(st.lists(st.integers(0, 2), max_size=14), st.integers(2, 4))
def test_loops_are_runs_of_the_same_piece(tokens: list[int], times: int) -> None:
    pieces = (
        tokens[i : i + n] * times == tokens[i : i + n * times]
        for n in range(1, len(tokens) + 1)
        for i in range(len(tokens) - n * times + 1)
    )
    assert loops(tokens, times) == any(pieces)


def test_repetition_is_a_share_of_ngrams() -> None:
    assert repetition([], 1) == repetition([4], 2) == repetition([1, 2, 3]) == 0
    assert repetition([7, 7, 7, 7]) == 0.75
    assert repetition([1, 2, 1, 2, 1], 2) == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 5, "num_groups": 2}, "5 beams do not divide into 2 groups"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
        ({"forbidden": (END,)}, "is forbidden"),
    ],
)
def test_settings_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(CaptionerError, match=message) as raised:
        DecodeConfig(BEGIN, END, **values)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_sampling_out_of_range() -> None:
    toy = Toy(1, 3, 0)
    for values in ({"top_p": 0.0}, {"top_p": 1.1}, {"temperature": 0.0}, {"samples": 0}):
        with pytest.raises(CaptionerError, match="top_p"):
            sample(toy, toy.start([0]), DecodeConfig(BEGIN, END), torch.Generator(), **values)  # type: ignore[arg-type]


def test_nothing_in_nothing_out() -> None:
    toy = Toy(1, 3, 0)
    config = DecodeConfig(BEGIN, END)
    assert beam_search(toy, toy.start([]), config) == greedy(toy, toy.start([]), config) == []
    assert sample(toy, toy.start([]), config, torch.Generator()) == []


def test_no_token_left_to_write() -> None:
    toy = Toy(1, 3, 0)
    config = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=5, min_tokens=5, no_repeat_ngram=1, num_beams=2)
    for (found,) in (greedy(toy, toy.start([0]), config), sample(toy, toy.start([0]), config, torch.Generator())):
        assert found[0].tokens == (2,)
        assert not found[0].finished
    assert beam_search(toy, toy.start([0]), config) == [[]]


def test_all_orders_of_two_rows() -> None:
    """`reorder` copies what is fixed exactly where a row gets another picture."""
    state = State({"f": torch.tensor([[1.0], [2.0]])}, {"m": torch.tensor([[3.0], [4.0]])}, torch.tensor([0, 1]))
    for rows in itertools.product([0, 1], repeat=2):
        new = reorder(state, torch.tensor(rows))
        assert new.fixed["f"][:, 0].tolist() == [1.0 + row for row in rows]
        assert new.moving["m"][:, 0].tolist() == [3.0 + row for row in rows]
        assert (new.fixed["f"] is state.fixed["f"]) == (rows == (0, 1))
