from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.errors import EncoderError
from unprompt.search.extension_net import ExtensionNet, extended, load_net
from unprompt.search.weighted_mean import relative_lengths

DIM, HIDDEN, TERMS = 24, 16, 40


def rows(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def inputs() -> tuple[Tensor, ...]:
    lengths = torch.arange(1, TERMS + 1).float()
    return rows(TERMS, 0), rows(TERMS, 1), lengths, rows(TERMS, 2), 20 + 7 * lengths.flip(0)


@pytest.fixture
def net() -> ExtensionNet:
    """A network whose every layer does something."""
    torch.manual_seed(3)
    net = ExtensionNet(DIM, HIDDEN)
    for layer in (net.gate, net.out):
        nn.init.normal_(layer.weight, std=0.1)
    net.means[:] = rows(2, 4) / 10
    net.scales[:] = torch.tensor([0.9, 0.8])
    return net.eval().requires_grad_(False)


def test_predictions_are_a_row_of_norm_1_each(net: ExtensionNet, inputs: tuple[Tensor, ...]) -> None:
    predicted = net(*inputs)
    assert predicted.shape == (TERMS, DIM)
    torch.testing.assert_close(predicted.norm(dim=1), torch.ones(TERMS))


def test_an_untrained_network_predicts_the_mean_weighted_by_length(inputs: tuple[Tensor, ...]) -> None:
    embeddings, _, lengths, prompts, prompt_lengths = inputs
    weights = (2 * (lengths + 4) / (prompt_lengths + 4)).clamp(0.05, 1.5)[:, None]
    mean = F.normalize(prompts + weights * embeddings, dim=1)
    torch.testing.assert_close(ExtensionNet(DIM, HIDDEN)(*inputs), mean)


def test_a_term_counts_by_its_length_within_bounds() -> None:
    found = relative_lengths(torch.tensor([1.0, 46.0, 200.0]), torch.tensor([400.0, 96.0, 20.0]))
    torch.testing.assert_close(found, torch.tensor([0.05, 1.0, 1.5]))


def test_parts_made_beforehand_give_the_same(net: ExtensionNet, inputs: tuple[Tensor, ...]) -> None:
    embeddings, contexts, lengths, prompts, prompt_lengths = inputs
    whole = net(embeddings, contexts, lengths, prompts[:1].expand(TERMS, DIM), prompt_lengths[:1].expand(TERMS))
    terms = net.term_part(embeddings, contexts, lengths)  # all of them at once, and the prompt alone
    context = net.context(prompts[:1], prompt_lengths[:1])[0]
    shift = net.shift(terms, net.prompt(context), 1 + net.gate(context))
    parts = extended(embeddings, prompts[0], relative_lengths(lengths, float(prompt_lengths[0])), shift)
    torch.testing.assert_close(parts, whole)
    assert not torch.allclose(parts, ExtensionNet(DIM, HIDDEN)(*inputs), atol=1e-3)


def test_the_terms_statistics_are_taken_out(net: ExtensionNet, inputs: tuple[Tensor, ...]) -> None:
    embeddings, contexts, lengths, _, _ = inputs
    before = net.term_part(embeddings, contexts, lengths)
    moved = [3 * each + 1 for each in (embeddings, contexts)]
    net.means[:] = 3 * net.means + 1
    net.scales[:] = 3 * net.scales
    torch.testing.assert_close(net.term_part(*moved, lengths), before)


def test_a_file_of_other_tensors_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, path)
    with pytest.raises(EncoderError, match=r"net\.safetensors does not hold a network that extends prompts") as caught:
        load_net(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file"])
def test_a_missing_or_broken_file_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"net\.safetensors") as caught:
        load_net(path)
    assert "\n" not in str(caught.value)
