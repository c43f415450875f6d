"""kNN interpolation against a naive count, and that its limits are the model and the neighbour."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unprompt.captioners.decode import DecodeConfig, greedy
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, State, reorder
from unprompt.captioners.lstm import LSTMCaptioner, LSTMConfig, Memory
from unprompt.captioners.neighbours import NeighbourDecoder, NeighbourMixture

BEGIN, END, VOCABULARY = 0, 1, 7


class Even:
    """A model without an opinion."""

    def start(self, count: int) -> State:
        return State({}, {"read": torch.zeros(count, 0, dtype=torch.long)}, torch.arange(count))

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        read = torch.cat([state.moving["read"], tokens[:, None]], dim=1)
        return torch.zeros(len(tokens), VOCABULARY), state._replace(moving={"read": read})

    def reorder(self, state: State, rows: Tensor) -> State:
        return reorder(state, rows)


def proposal(
    text: list[int], neighbours: list[list[int]], cosines: list[float], mixture: NeighbourMixture
) -> list[float] | None:
    """The next token's distribution, counted place by place; None where the neighbours are silent."""
    weights = [math.exp(cosine / mixture.temperature) for cosine in cosines]
    found = []
    for neighbour, weight in zip(neighbours, weights, strict=True):
        for place in range(1, len(neighbour)):
            length = 0
            while (
                length < min(place, len(text), mixture.max_order) and neighbour[place - 1 - length] == text[-1 - length]
            ):
                length += 1
            found.append((length, neighbour[place], weight))
    longest = max((length for length, _, _ in found), default=-1)
    if longest < mixture.min_order:
        return None
    total = [sum(w for length, t, w in found if length == longest and t == token) for token in range(VOCABULARY)]
    return [value / sum(total) for value in total]


texts = st.lists(st.integers(2, VOCABULARY - 1), max_size=5).map(lambda words: [BEGIN, *words, END])
pictures = st.lists(st.lists(st.tuples(texts, st.floats(0, 1)), max_size=3), min_size=1, max_size=3)
mixtures = st.builds(
    NeighbourMixture,
    share=st.sampled_from([0.0, 0.3, 0.9]),
    temperature=st.sampled_from([0.1, 1.0]),
    max_order=st.integers(1, 3),
    min_order=st.integers(0, 1),
)


@given(told=pictures, written=st.lists(st.integers(2, VOCABULARY - 1), max_size=5), mixture=mixtures)
def test_mixture_is_the_counted_one(
    told: list[list[tuple[list[int], float]]], written: list[int], mixture: NeighbourMixture
) -> None:
    decoder = NeighbourDecoder(Even(), mixture)
    neighbours = [[text for text, _ in each] for each in told]
    cosines = [[cosine for _, cosine in each] for each in told]
    state = decoder.start(Even().start(len(told)), neighbours, cosines)
    read = [BEGIN, *written]
    for position, token in enumerate(read):
        logits, state = decoder.step(state, torch.full((len(told),), token))
        for row in range(len(told)):
            proposed = proposal(read[: position + 1], neighbours[row], cosines[row], mixture)
            share = mixture.share if proposed is not None else 0.0
            proposed = proposed or [0.0] * VOCABULARY
            expected = [(1 - share) / VOCABULARY + share * value for value in proposed]
            assert logits[row].exp().tolist() == pytest.approx(expected, abs=1e-5)


def test_backing_off_goes_to_the_longest_end() -> None:
    """After "2 3" the neighbour that has "2 3" speaks, not the one that only has "3"; after a new token none does."""
    decoder = NeighbourDecoder(Even(), NeighbourMixture(share=0.5))
    state = decoder.start(Even().start(1), [[[BEGIN, 2, 3, 4, END], [BEGIN, 5, 3, 6, END]]])
    for token, expected in ((BEGIN, {2: 0.5, 5: 0.5}), (2, {3: 1.0}), (3, {4: 1.0}), (3, {4: 0.5, 6: 0.5}), (1, {})):
        logits, state = decoder.step(state, torch.tensor([token]))
        share = 0.5 if expected else 0.0
        values = [(1 - share) / VOCABULARY + share * expected.get(word, 0.0) for word in range(VOCABULARY)]
        assert logits[0].exp().tolist() == pytest.approx(values, abs=1e-6)


def lstm() -> tuple[LSTMCaptioner, Memory]:
    torch.manual_seed(0)
    widths = {"memory_dim": 8, "embedding_dim": 8, "hidden_dim": 8, "attention_dim": 8}
    model = LSTMCaptioner(LSTMConfig(vocabulary=VOCABULARY, grid_dim=4, grid_tokens=3, **widths)).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(6)
    return model, Memory(torch.randn(3, 3, 4))


CONFIG = DecodeConfig(BEGIN, END, (BEGIN,), max_tokens=7, num_beams=3)
TOLD = [[[BEGIN, 2, 3, 4, END]], [[BEGIN, 6, 5, END], [BEGIN, 6, 5, 2, END]], []]


def test_without_a_share_the_model_speaks_alone() -> None:
    model, memory = lstm()
    decoder = NeighbourDecoder(model, NeighbourMixture(share=0.0))
    expected = beam_search(model, model.start(memory), CONFIG)
    found = beam_search(decoder, decoder.start(model.start(memory), TOLD), CONFIG)
    for one, other in zip(found, expected, strict=True):
        assert [each.tokens for each in one] == [each.tokens for each in other]
        assert [each.score for each in one] == pytest.approx([each.score for each in other], abs=1e-5)


def test_with_nearly_all_the_share_the_neighbour_is_copied() -> None:
    model, memory = lstm()
    decoder = NeighbourDecoder(model, NeighbourMixture(share=0.9999))
    for write in (greedy, beam_search):
        found = write(decoder, decoder.start(model.start(memory), TOLD), CONFIG)
        assert found[0][0].tokens == (2, 3, 4)
        assert found[1][0].tokens[:2] == (6, 5)
        alone = write(model, model.start(memory), CONFIG)
        assert found[2][0].tokens == alone[2][0].tokens, "without neighbours the model speaks alone"


@pytest.mark.parametrize("groups", [1, 3])
def test_a_picture_does_not_depend_on_its_batch(groups: int) -> None:
    model, memory = lstm()
    decoder = NeighbourDecoder(model, NeighbourMixture(share=0.5))
    config = replace(CONFIG, num_groups=groups)
    cosines = [[0.8], [0.7, 0.6], []]
    together = beam_search(decoder, decoder.start(model.start(memory), TOLD, cosines), config)
    for row in range(3):
        state = decoder.start(
            model.start(memory.select(slice(row, row + 1))), TOLD[row : row + 1], cosines[row : row + 1]
        )
        (alone,) = beam_search(decoder, state, config)
        assert [each.tokens for each in alone] == [each.tokens for each in together[row]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[row]], abs=1e-5)


def test_nearer_neighbours_weigh_more() -> None:
    decoder = NeighbourDecoder(Even(), NeighbourMixture(share=0.5, temperature=0.1))
    told = [[[BEGIN, 2, END], [BEGIN, 3, END]]]
    logits, _ = decoder.step(decoder.start(Even().start(1), told, [[0.8, 0.7]]), torch.tensor([BEGIN]))
    proposed = (logits[0].exp() - 0.5 / VOCABULARY) / 0.5
    assert float(proposed[2] / proposed[3]) == pytest.approx(math.e, rel=1e-4)


@pytest.mark.parametrize(
    "values", [{"share": 1.0}, {"share": -0.1}, {"temperature": 0.0}, {"max_order": 0}, {"min_order": 5}]
)
def test_settings_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(CaptionerError, match=f"{next(iter(values))} {next(iter(values.values()))}"):
        NeighbourMixture(**values)  # type: ignore[arg-type]


def test_numbers_that_differ_are_refused() -> None:
    decoder = NeighbourDecoder(Even())
    with pytest.raises(CaptionerError, match="2 pictures have 1 lists of neighbours"):
        decoder.start(Even().start(2), [[]])
    with pytest.raises(CaptionerError, match="give one each"):
        decoder.start(Even().start(1), [[[BEGIN, END]]], [[0.5, 0.4]])
