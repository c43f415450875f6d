"""The LSTM: attention, its cache, and that it learns from picture and neighbours."""

from __future__ import annotations

import json

import pytest
import torch

from unprompt.captioners.decode import DecodeConfig, greedy
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, Memory, predicted, shifted_loss
from unprompt.captioners.lstm import LSTMCaptioner, LSTMConfig

SIZES = {"vocabulary": 11, "grid_dim": 6, "grid_tokens": 4, "max_tokens": 8, "memory_dim": 16, "embedding_dim": 12}
SIZES |= {"hidden_dim": 20, "attention_dim": 10}


def model(**values: int) -> LSTMCaptioner:
    torch.manual_seed(0)
    return LSTMCaptioner(LSTMConfig(**{**SIZES, **values})).eval()


def memory(count: int = 3, neighbours: bool = True, seed: int = 1) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(count, 4, 6, generator=generator)
    if not neighbours:
        return Memory(grid)
    mask = torch.tensor([[True, True], [True, False], [False, False]])[:count]
    return Memory(grid, torch.randn(count, 2, 5, generator=generator), mask)


def tokens(count: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(0, 11, (count, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("neighbour_dim", [0, 5])
def test_steps_are_the_forward_pass(neighbour_dim: int) -> None:
    captioner, told, text = model(neighbour_dim=neighbour_dim), memory(), tokens()
    state = captioner.start(told)
    for position, logits in enumerate(captioner(told, text).unbind(dim=1)):
        stepped, state = captioner.step(state, text[:, position])
        torch.testing.assert_close(stepped, logits)


def test_each_logit_depends_on_the_tokens_before_it_alone() -> None:
    captioner, told, text = model(), memory(), tokens()
    changed = text.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = captioner(told, text), captioner(told, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_attention_weights_are_those_of_the_formula() -> None:
    captioner, told, text = model(), memory(neighbours=False), tokens()
    weights = captioner.attention_weights(told, text)
    assert weights.shape == (3, 7, 4)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 7))
    values = captioner.memory(told).tokens
    hidden = captioner.initial(values.mean(dim=1)).tanh()[:, :20]
    query = captioner.attention.query(hidden)
    for picture in range(3):
        scores = [
            captioner.attention.score(torch.tanh(query[picture] + captioner.attention.key(values[picture, place])))
            for place in range(4)
        ]
        torch.testing.assert_close(weights[picture, 0], torch.cat(scores).softmax(dim=0))


def test_missing_neighbours_are_not_attended_to() -> None:
    captioner, told, text = model(neighbour_dim=5), memory(), tokens()
    weights = captioner.attention_weights(told, text)
    assert weights.shape == (3, 7, 6)
    assert bool((weights[0, :, 4:] > 0).all())
    assert bool((weights[1, :, 5] == 0).all())
    assert bool((weights[2, :, 4:] == 0).all())
    assert told.neighbours is not None
    other = told._replace(neighbours=torch.where(told.neighbour_mask[..., None], told.neighbours, 99.0))  # type: ignore[index]
    torch.testing.assert_close(captioner(other, text), captioner(told, text))
    alone = captioner(Memory(told.grid), text)
    torch.testing.assert_close(alone[2], captioner(told, text)[2])
    assert not torch.allclose(alone[0], captioner(told, text)[0])


def test_a_picture_does_not_depend_on_its_batch() -> None:
    captioner, told, text = model(neighbour_dim=5), memory(), tokens()
    together = captioner(told, text)
    for row in range(3):
        alone = captioner(told.select(slice(row, row + 1)), text[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


def test_reordered_states_go_on_as_their_rows() -> None:
    captioner, told, text = model(neighbour_dim=5), memory(), tokens()
    rows = torch.tensor([2, 0, 0, 1])
    state = captioner.start(told)
    _, state = captioner.step(state, text[:, 0])
    moved = captioner.reorder(state, rows)
    expected, _ = captioner.step(state, text[:, 1])
    found, _ = captioner.step(moved, text[rows, 1])
    torch.testing.assert_close(found, expected[rows])


def test_it_learns_what_picture_and_neighbour_say() -> None:
    """Four pictures whose captions need the grid for one word and the neighbour for the next."""
    captioner = model(neighbour_dim=5, vocabulary=8).train()
    grid = torch.zeros(4, 4, 6)
    grid[:2, 1, 2], grid[2:, 3, 4] = 3.0, 3.0
    neighbours = torch.zeros(4, 1, 5)
    neighbours[::2, 0, 0], neighbours[1::2, 0, 1] = 1.0, 1.0
    text = torch.tensor([[1, 4, 6, 2, 0], [1, 4, 7, 2, 0], [1, 5, 6, 2, 0], [1, 5, 7, 2, 0]])
    told = Memory(grid, neighbours)
    optimizer = torch.optim.Adam(captioner.parameter_groups(0.0), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = shifted_loss(captioner(told, text), text, pad=0)
        loss.backward()
        optimizer.step()
    captioner.eval()
    config = DecodeConfig(1, 2, (0, 1), max_tokens=6)
    for write in (greedy, beam_search):
        found = write(captioner, captioner.start(told), config)
        assert [each[0].tokens for each in found] == [(4, 6), (4, 7), (5, 6), (5, 7)]


def test_the_loss_is_shifted_and_skips_padding() -> None:
    logits, text = torch.randn(2, 4, 11), torch.tensor([[1, 5, 2, 0], [1, 2, 0, 0]])
    log_probabilities = logits.log_softmax(dim=-1)
    expected = -(log_probabilities[0, 0, 5] + log_probabilities[0, 1, 2] + log_probabilities[1, 0, 2])
    torch.testing.assert_close(shifted_loss(logits, text, 0, reduction="sum"), expected)
    torch.testing.assert_close(shifted_loss(logits[:, :3], text, 0), expected / 3)
    assert predicted(text, 0) == 3


def test_weights_go_and_come_back() -> None:
    captioner = model(neighbour_dim=5)
    config = LSTMConfig.from_dict(json.loads(json.dumps(captioner.config.to_dict())))
    torch.manual_seed(9)
    other = LSTMCaptioner(config).eval()
    assert not torch.equal(other(memory(), tokens()), captioner(memory(), tokens()))
    other.load_weights(captioner.weights())
    assert torch.equal(other(memory(), tokens()), captioner(memory(), tokens()))
    weights = captioner.weights()
    del weights["bias"]
    with pytest.raises(CaptionerError, match=r"not of this lstm \(1 differ, bias first\)"):
        other.load_weights(weights)
    with pytest.raises(CaptionerError, match=r"initial\.weight first"):
        other.load_weights({**captioner.weights(), "initial.weight": torch.zeros(1)})


def test_another_backbone_or_encoder_is_refused() -> None:
    captioner = model(neighbour_dim=5)
    with pytest.raises(CaptionerError, match=r"the grid is \(4, 7\), this captioner reads \(4, 6\)"):
        captioner(Memory(torch.zeros(1, 4, 7)), tokens(1))
    with pytest.raises(CaptionerError, match="neighbour embeddings are 4 wide, this captioner reads 5"):
        captioner(Memory(torch.zeros(1, 4, 6), torch.zeros(1, 2, 4)), tokens(1))


def test_half_precision_grids_are_read() -> None:
    captioner, told = model(), memory(neighbours=False)
    half = Memory(told.grid.half())
    torch.testing.assert_close(captioner(half, tokens()), captioner(told, tokens()), atol=5e-3, rtol=0)


def test_no_parameter_is_forgotten() -> None:
    captioner = model(neighbour_dim=5)
    groups = captioner.parameter_groups(0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(captioner.parameters()))
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(parameter.ndim < 2 for parameter in groups[1]["params"])
    shifted_loss(captioner(memory(), tokens()), tokens(), pad=-1).backward()
    assert all(parameter.grad is not None for parameter in captioner.parameters())
