"""What every trainable captioner promises, whatever it is made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from captioner_inputs import memory, tokens
from unprompt.captioners.decode import DecodeConfig, greedy
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, CaptionModel, Memory, shifted_loss
from unprompt.captioners.registry import model_class

SIZES = {"vocabulary": 11, "grid_dim": 6, "grid_tokens": 4, "max_tokens": 8}
# Embeddings as large as trained ones: those of a random model can hardly tell its tokens apart.
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": 11}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5}
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"memory_dim": 16, "embedding_dim": 12, "hidden_dim": 20, "attention_dim": 10},
    "transformer": {"dim": 16, "heads": 2, "feedforward": 24},
    "bridge": {
        "language_model": GPT2,
        "unfrozen_layers": 1,
        "queries": 3,
        "dim": 16,
        "heads": 2,
        "layers": 2,
        "feedforward": 24,
    },
}
every_model = pytest.mark.parametrize("name", MODELS)


def model(name: str, **values: Any) -> CaptionModel:
    if name == "bridge":
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = model_class(name)
    return kind(kind.config_class.from_dict({**SIZES, **MODELS[name], **values})).eval()


@every_model
@pytest.mark.parametrize("neighbour_dim", [0, 5])
def test_steps_are_the_forward_pass(name: str, neighbour_dim: int) -> None:
    captioner, told, text = model(name, neighbour_dim=neighbour_dim), memory(), tokens()
    state = captioner.start(told)
    for position, logits in enumerate(captioner(told, text).unbind(dim=1)):
        stepped, state = captioner.step(state, text[:, position])
        torch.testing.assert_close(stepped, logits)


@every_model
def test_each_logit_depends_on_the_tokens_before_it_alone(name: str) -> None:
    captioner, told, text = model(name), memory(), tokens()
    changed = text.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = captioner(told, text), captioner(told, changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


@every_model
def test_missing_neighbours_are_not_read(name: str) -> None:
    captioner, told, text = model(name, neighbour_dim=5), memory(), tokens()
    assert told.neighbours is not None
    assert told.neighbour_mask is not None
    other = told._replace(neighbours=torch.where(told.neighbour_mask[..., None], told.neighbours, 99.0))
    torch.testing.assert_close(captioner(other, text), captioner(told, text))
    alone = captioner(Memory(told.grid), text)
    torch.testing.assert_close(alone[2], captioner(told, text)[2])
    assert not torch.allclose(alone[0], captioner(told, text)[0])


@every_model
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    captioner, told, text = model(name, neighbour_dim=5), memory(), tokens()
    together = captioner(told, text)
    for row in range(3):
        alone = captioner(told.select(slice(row, row + 1)), text[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


@every_model
def test_reordered_states_go_on_as_their_rows(name: str) -> None:
    captioner, told, text = model(name, neighbour_dim=5), memory(), tokens()
    rows = torch.tensor([2, 0, 0, 1])
    state = captioner.start(told)
    _, state = captioner.step(state, text[:, 0])
    moved = captioner.reorder(state, rows)
    expected, _ = captioner.step(state, text[:, 1])
    found, _ = captioner.step(moved, text[rows, 1])
    torch.testing.assert_close(found, expected[rows])


@every_model
def test_it_learns_what_picture_and_neighbour_say(name: str) -> None:
    """Four pictures whose captions need the grid for one word and the neighbour for the next."""
    captioner = model(name, neighbour_dim=5, dropout=0.0).train()
    grid = torch.zeros(4, 4, 6)
    grid[:2, 1, 2], grid[2:, 3, 4] = 3.0, 3.0
    neighbours = torch.zeros(4, 1, 5)
    neighbours[::2, 0, 0], neighbours[1::2, 0, 1] = 1.0, 1.0
    text = torch.tensor([[1, 4, 6, 2, 0], [1, 4, 7, 2, 0], [1, 5, 6, 2, 0], [1, 5, 7, 2, 0]])
    told = Memory(grid, neighbours)
    optimizer = torch.optim.AdamW(captioner.parameter_groups(0.0), lr=0.01)
    for _ in range(70):
        optimizer.zero_grad()
        shifted_loss(captioner(told, text), text, pad=0).backward()
        optimizer.step()
    captioner.eval()
    config = DecodeConfig(1, 2, (0, 1), max_tokens=6)
    for write in (greedy, beam_search):
        found = write(captioner, captioner.start(told), config)
        assert [each[0].tokens for each in found] == [(4, 6), (4, 7), (5, 6), (5, 7)]


@every_model
def test_weights_go_and_come_back(name: str) -> None:
    captioner = model(name, neighbour_dim=5)
    torch.manual_seed(9)
    kind = model_class(name)
    other = kind(kind.config_class.from_dict(json.loads(json.dumps(captioner.config.to_dict())))).eval()
    assert not torch.equal(other(memory(), tokens()), captioner(memory(), tokens()))
    other.load_weights(captioner.weights())
    assert torch.equal(other(memory(), tokens()), captioner(memory(), tokens()))
    weights = captioner.weights()
    first = next(iter(weights))
    with pytest.raises(CaptionerError, match=f"not of this {name} .*{first} first"):
        other.load_weights({**weights, first: torch.zeros(1)})
    del weights[first]
    with pytest.raises(CaptionerError, match=rf"not of this {name} \(1 differ, {first} first\)"):
        other.load_weights(weights)


@every_model
def test_another_backbone_or_encoder_is_refused(name: str) -> None:
    captioner = model(name, neighbour_dim=5)
    with pytest.raises(CaptionerError, match=r"the grid is \(4, 7\), this captioner reads \(4, 6\)"):
        captioner(Memory(torch.zeros(1, 4, 7)), tokens()[:1])
    with pytest.raises(CaptionerError, match="neighbour embeddings are 4 wide, this captioner reads 5"):
        captioner(Memory(torch.zeros(1, 4, 6), torch.zeros(1, 2, 4)), tokens()[:1])


@every_model
def test_half_precision_grids_are_read(name: str) -> None:
    captioner, told = model(name), Memory(memory().grid)
    torch.testing.assert_close(
        captioner(Memory(told.grid.half()), tokens()), captioner(told, tokens()), atol=2e-2, rtol=0
    )


@every_model
def test_no_parameter_is_forgotten(name: str) -> None:
    captioner = model(name, neighbour_dim=5)
    groups = captioner.parameter_groups(0.1)
    trained = sum(len(group["params"]) for group in groups)
    assert trained + len(captioner.frozen_names()) == len(list(captioner.parameters()))
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(parameter.ndim < 2 for parameter in groups[1]["params"])
    shifted_loss(captioner(memory(), tokens()), tokens(), pad=-1).backward()
    assert all(parameter.grad is not None for group in groups for parameter in group["params"])
