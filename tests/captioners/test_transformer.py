"""The transformer: against torch's own layers, and its size. What all captioners promise is in test_contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captioner_inputs import memory, tokens
from unprompt.captioners.attention import CrossBlock, EncoderBlock, MultiHeadAttention
from unprompt.captioners.decode import DecodeConfig, greedy
from unprompt.captioners.interface import CaptionerError, Memory
from unprompt.captioners.transformer import TransformerCaptioner, TransformerConfig

SIZES = {"vocabulary": 11, "grid_dim": 6, "grid_tokens": 4, "max_tokens": 8, "dim": 16, "heads": 2, "feedforward": 24}


def model(**values: int) -> TransformerCaptioner:
    torch.manual_seed(0)
    return TransformerCaptioner(TransformerConfig(**{**SIZES, **values})).eval()


def parameters(c: TransformerConfig) -> int:
    """By hand: linear layers are (in + 1) * out, norms 2 * d."""
    d, norm = c.dim, 2 * c.dim
    attention = 4 * (d + 1) * d
    feedforward = (d + 1) * c.feedforward + (c.feedforward + 1) * d
    encoder = c.encoder_layers * (attention + feedforward + 2 * norm) + norm
    decoder = c.decoder_layers * (2 * attention + feedforward + 3 * norm) + norm
    memory = (c.grid_dim + 1) * d + norm + c.grid_tokens * d
    neighbours = (c.neighbour_dim + 1) * d + norm + 2 * d if c.neighbour_dim else 0
    words = c.vocabulary * d + c.max_tokens * d + c.vocabulary  # tied: the output adds its bias alone
    return memory + neighbours + encoder + decoder + words


@pytest.mark.parametrize("neighbour_dim", [0, 5])
def test_size_by_formula(neighbour_dim: int) -> None:
    captioner = model(neighbour_dim=neighbour_dim)
    assert sum(parameter.numel() for parameter in captioner.parameters()) == parameters(captioner.config)


@pytest.mark.parametrize(("grid_dim", "expected"), [(2048, 20_012_040), (1280, 19_618_824)])
def test_size_of_the_papers_model(grid_dim: int, expected: int) -> None:
    """2 + 2 blocks of 4 heads, 512 wide, over 7x7 tokens of a ResNet-50 or an EfficientNet-Lite2, 8,200 words."""
    config = TransformerConfig(vocabulary=8200, grid_dim=grid_dim, max_tokens=30)
    assert (config.dim, config.heads, config.encoder_layers, config.decoder_layers) == (512, 4, 2, 2)
    with torch.device("meta"):
        captioner = TransformerCaptioner(config)
    assert sum(parameter.numel() for parameter in captioner.parameters()) == parameters(config) == expected


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    linears = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in linears]))
        theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in linears]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def test_blocks_are_torchs_own() -> None:
    torch.manual_seed(0)
    x, told = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    block, theirs = EncoderBlock(16, 2, 24, 0.0), nn.TransformerEncoderLayer(16, 2, 24, **options)
    copy_attention(block.attention, theirs.self_attn)
    for name, part in (("norm1", block.norm1), ("norm2", block.norm2)):
        getattr(theirs, name).load_state_dict(part.state_dict())
    for name, part in (("linear1", block.feedforward[0]), ("linear2", block.feedforward[3])):
        getattr(theirs, name).load_state_dict(part.state_dict())
    torch.testing.assert_close(block(x, None), theirs(x))

    cross, decoder = CrossBlock(16, 2, 24, 0.0), nn.TransformerDecoderLayer(16, 2, 24, **options)
    copy_attention(cross.attention, decoder.self_attn)
    copy_attention(cross.cross, decoder.multihead_attn)
    for name in ("norm1", "norm2", "norm3"):
        getattr(decoder, name).load_state_dict(getattr(cross, name).state_dict())
    for name, part in (("linear1", cross.feedforward[0]), ("linear2", cross.feedforward[3])):
        getattr(decoder, name).load_state_dict(part.state_dict())
    mask = torch.tensor([[True, True, False, True], [True, False, False, True]])
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    expected = decoder(x, told, tgt_mask=causal, memory_key_padding_mask=~mask, tgt_is_causal=True)
    found, _ = cross(x, cross.cross.project(told), mask, causal=True)
    torch.testing.assert_close(found, expected)


def test_missing_neighbours_are_not_attended_to() -> None:
    captioner, told, text = model(neighbour_dim=5), memory(), tokens()
    weights = captioner.attention_weights(told, text)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 7))
    assert bool((weights[2, :, 4:] == 0).all())
    assert bool((weights[0] > 0).all())


def test_positions_of_the_grid_matter() -> None:
    captioner, told, text = model(), memory(), tokens()
    turned = Memory(told.grid.flip(1))
    assert not torch.allclose(captioner(turned, text), captioner(Memory(told.grid), text))


def test_a_beam_keeps_the_memory_where_it_lies() -> None:
    """Beams of one picture share its keys and values: swapping them copies the cache of tokens and no more."""
    captioner = model()
    state = captioner.reorder(captioner.start(memory(2)), torch.tensor([0, 0, 1, 1]))
    _, state = captioner.step(state, torch.tensor([1, 2, 3, 4]))
    swapped = captioner.reorder(state, torch.tensor([1, 0, 3, 2]))
    assert swapped.fixed["keys.0"] is state.fixed["keys.0"]
    assert torch.equal(swapped.moving["keys.0"], state.moving["keys.0"][[1, 0, 3, 2]])


def test_captions_beyond_its_positions_are_refused() -> None:
    captioner = model()
    with pytest.raises(CaptionerError, match="a caption of 9 tokens is longer than this transformer's 8"):
        captioner(memory(), tokens(length=9))
    with pytest.raises(CaptionerError, match="a caption of 9 tokens"):
        greedy(captioner, captioner.start(memory()), DecodeConfig(1, 10, min_tokens=9, max_tokens=9))


def test_heads_divide_the_width() -> None:
    with pytest.raises(CaptionerError, match="width 16 does not divide into 3 heads"):
        model(heads=3)
