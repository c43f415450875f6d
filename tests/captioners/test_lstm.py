"""The LSTM: where it looks. What all captioners promise is in test_contract."""

from __future__ import annotations

import torch

from captioner_inputs import memory, tokens
from unprompt.captioners.interface import predicted, shifted_loss
from unprompt.captioners.lstm import LSTMCaptioner, LSTMConfig

SIZES = {"vocabulary": 11, "grid_dim": 6, "grid_tokens": 4, "max_tokens": 8, "memory_dim": 16, "embedding_dim": 12}
SIZES |= {"hidden_dim": 20, "attention_dim": 10}


def model(**values: int) -> LSTMCaptioner:
    torch.manual_seed(0)
    return LSTMCaptioner(LSTMConfig(**{**SIZES, **values})).eval()


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


def test_the_loss_is_shifted_and_skips_padding() -> None:
    logits, text = torch.randn(2, 4, 11), torch.tensor([[1, 5, 2, 0], [1, 2, 0, 0]])
    log_probabilities = logits.log_softmax(dim=-1)
    expected = -(log_probabilities[0, 0, 5] + log_probabilities[0, 1, 2] + log_probabilities[1, 0, 2])
    torch.testing.assert_close(shifted_loss(logits, text, 0, reduction="sum"), expected)
    torch.testing.assert_close(shifted_loss(logits[:, :3], text, 0), expected / 3)
    assert predicted(text, 0) == 3
