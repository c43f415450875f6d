from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captioners.ofa.conftest import random_model, small_config
from unprompt.captioners.ofa.config import RESNET_BLOCKS, SIZES, OfaConfig
from unprompt.captioners.ofa.layers import Attention
from unprompt.captioners.ofa.model import OfaModel
from unprompt.captioners.ofa.resnet import ResNet
from unprompt.encoders.torchvision_fix import ensure_torchvision

CHANGES: list[dict[str, object]] = [
    {},
    {"normformer": False, "encoder_normalize_before": False, "decoder_normalize_before": False},
    {"entangle_position_embedding": True, "share_attn_bias": True, "use_gamma_feature": True},
]


def inputs(rows: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, one question, answers."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn((rows, 3, 64, 48), generator=generator)
    return pictures, torch.tensor([[0, 7, 9, 11, 2]]), torch.randint(4, 60, (rows, 6), generator=generator)


@pytest.mark.parametrize("changes", CHANGES)
def test_steps_give_what_reading_the_whole_answer_gives(changes: dict[str, object]) -> None:
    model = random_model(small_config(**changes))
    pictures, question, tokens = inputs(3)
    whole = model(pictures, question, tokens)
    assert whole.shape == (3, 6, 60)
    state = model.start(model.encode(pictures, question))
    for place in range(tokens.shape[1]):
        logits, state = model.step(state, tokens[:, place])
        torch.testing.assert_close(logits, whole[:, place], rtol=1e-4, atol=1e-5)


def test_a_reordered_state_goes_on_as_its_rows() -> None:
    model = random_model(small_config())
    pictures, question, tokens = inputs()
    rows = torch.tensor([1, 1, 0])
    state = model.start(model.encode(pictures, question))
    for place in range(3):
        _, state = model.step(state, tokens[:, place])
    logits, _ = model.step(model.reorder(state, rows), tokens[rows, 3])
    torch.testing.assert_close(logits, model(pictures, question, tokens)[rows, 3], rtol=1e-4, atol=1e-5)


def test_no_token_sees_those_after_it_but_all_see_those_before() -> None:
    model = random_model(small_config())
    pictures, question, tokens = inputs()
    changed = tokens.clone()
    changed[:, 3] = 5 + (tokens[:, 3] == 5).long()
    before, after = model(pictures, question, tokens), model(pictures, question, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert ((before - after).abs().amax(dim=2)[:, 3:] > 1e-3).all()


def test_the_answer_depends_on_picture_and_question() -> None:
    model = random_model(small_config())
    pictures, question, tokens = inputs()
    answer = model(pictures, question, tokens)
    assert (model(pictures.flip(3), question, tokens) - answer).abs().max() > 1e-3
    assert (model(pictures, question.flip(1), tokens) - answer).abs().max() > 1e-3


def test_padding_a_question_changes_nothing() -> None:
    model = random_model(small_config())
    pictures, question, tokens = inputs()
    padded = torch.tensor([[0, 7, 9, 11, 2, 1, 1, 1], [0, 8, 9, 10, 12, 13, 14, 2]])
    both = model(pictures, padded, tokens)
    torch.testing.assert_close(both[:1], model(pictures[:1], question, tokens[:1]), rtol=1e-4, atol=1e-5)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(width=12, heads=3, scale_factor=2.0)
    with torch.no_grad():
        attention.c_attn.copy_(torch.tensor([0.5, 1.0, 2.0]))
        x, memory, bias = torch.randn(2, 4, 12), torch.randn(2, 5, 12), torch.randn(2, 3, 4, 5)
        bias[0, :, :, 3] = -torch.inf
        found = attention(x, attention.keys_values(memory), bias)
        mixed = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            queries, keys, values = (
                projection(given)[..., part]
                for projection, given in ((attention.q_proj, x), (attention.k_proj, memory), (attention.v_proj, memory))
            )
            weights = (queries @ keys.transpose(1, 2) / 8**0.5 + bias[:, head]).softmax(dim=-1)
            assert (weights[0, :, 3] == 0).all()
            mixed.append(attention.c_attn[head] * (weights @ values))
        torch.testing.assert_close(found, attention.out_proj(torch.cat(mixed, dim=-1)))


def test_the_trunk_is_torchvision_s_resnet_without_its_end() -> None:
    ensure_torchvision()
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    torch.manual_seed(0)
    ours, whole = ResNet(RESNET_BLOCKS["resnet50"]).eval(), models.resnet50().eval()
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith(("layer4", "fc"))}
    ours.load_state_dict(state)
    pictures = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(pictures))))
        expected = whole.layer3(whole.layer2(whole.layer1(x)))
        found = ours(pictures)
    assert found.shape == (1, 1024, 4, 6)
    torch.testing.assert_close(found, expected)


class Devices(TorchFunctionMode):
    """Notes the devices of everything that is computed."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.seen.add(out.device.type)
        return out


def test_everything_is_computed_on_the_model_s_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_meta(small_config(interpolate_position=True, orig_patch_image_size=32))
    pictures, question, tokens = (part.to("meta") for part in inputs())
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: True)  # meta tensors have no values to ask for
    with Devices() as devices:
        state = model.start(model.encode(pictures, question))
        for place in range(2):
            logits, state = model.step(state, tokens[:, place])
    assert logits.shape == (2, 60)
    assert devices.seen == {"meta"}


def on_meta(config: OfaConfig) -> OfaModel:
    with torch.device("meta"):
        return OfaModel(config)


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 33), ("medium", 93), ("base", 182), ("large", 472), ("huge", 930)]
)
def test_the_sizes_have_as_many_parameters_as_published(size: str, millions: int) -> None:
    model = on_meta(SIZES[size])
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    statistics = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
    return norm(name, width) | statistics


def trunk_names(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks, start=1):
        middle = 32 * 2**stage
        for i in range(count):
            block = f"layer{stage}.{i}"
            sizes = [(middle, channels, 1), (middle, middle, 3), (4 * middle, middle, 1)]
            for j, (out, into, side) in enumerate(sizes, start=1):
                names |= {f"{block}.conv{j}.weight": (out, into, side, side)} | batch_norm(f"{block}.bn{j}", out)
            if i == 0:
                names |= {f"{block}.downsample.0.weight": (4 * middle, channels, 1, 1)}
                names |= batch_norm(f"{block}.downsample.1", 4 * middle)
            channels = 4 * middle
    return {f"embed_images.{name}": shape for name, shape in names.items()}


def layer_names(width: int, heads: int, attentions: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = norm("ffn_layer_norm", 4 * width) | norm("final_layer_norm", width)
    names |= linear("fc1", 4 * width, width) | linear("fc2", width, 4 * width)
    for attention in attentions:
        for projection in "qkv":
            names |= linear(f"{attention}.{projection}_proj", width, width)
        names |= linear(f"{attention}.out_proj", width, width) | {f"{attention}.c_attn": (heads,)}
        names |= norm(f"{attention}_layer_norm", width) | norm(f"{attention}_mid_layer_norm", width)
    return names


def half_names(width: int, heads: int, layers: int, attentions: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """What encoder and decoder both have."""
    names: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (59457, width)}
    names |= {"embed_positions.weight": (1026, width), "embed_image_positions.weight": (42 * 42 + 1, width)}
    names |= {"token_rp_bucket": (1024, 1024), "image_rp_bucket": (42 * 42 + 1, 42 * 42 + 1)}
    for name in ("layernorm_embedding", "pos_ln", "image_pos_ln", "layer_norm"):
        names |= norm(name, width)
    for i in range(layers):
        names |= {f"token_rel_pos_table_list.{i}.weight": (511, heads)}
        names |= {f"image_rel_pos_table_list.{i}.weight": (83 * 83 + 3, heads)}
        names |= {f"layers.{i}.{name}": shape for name, shape in layer_names(width, heads, attentions).items()}
    return names


def test_the_tiny_model_has_the_official_names_and_shapes() -> None:
    encoder = half_names(256, 4, 4, ("self_attn",)) | trunk_names((3, 4, 6))
    encoder |= linear("image_proj", 256, 1024) | norm("patch_layernorm_embedding", 256)
    encoder |= {"type_embedding.weight": (2, 256)} | linear("pos_q_linear", 256, 256) | linear("pos_k_linear", 256, 256)
    decoder = half_names(256, 4, 4, ("self_attn", "cross_attn")) | norm("code_layernorm_embedding", 256)
    decoder |= {"output_projection.weight": (59457, 256), "image_position_idx": (1 + 16 * 16 + 768,)}
    for name in ("self_pos_q", "self_pos_k", "cross_pos_q", "cross_pos_k"):
        decoder |= linear(f"{name}_linear", 256, 256)
    expected = {f"encoder.{name}": shape for name, shape in encoder.items()}
    expected |= {f"decoder.{name}": shape for name, shape in decoder.items()}
    found = {name: tuple(value.shape) for name, value in on_meta(SIZES["tiny"]).state_dict().items()}
    assert found == expected


def test_switches_add_and_drop_their_parameters() -> None:
    full = set(on_meta(small_config()).state_dict())
    bare = set(on_meta(small_config(normformer=False, add_type_embedding=False)).state_dict())
    assert bare < full
    assert {name.split(".")[-2] for name in full - bare} == {
        "ffn_layer_norm",
        "self_attn_mid_layer_norm",
        "cross_attn_mid_layer_norm",
        "type_embedding",
    }
    scaled = set(on_meta(small_config(use_gamma_feature=True)).state_dict()) - full
    assert {name.split(".")[-1] for name in scaled} == {"weight_self_attn", "weight_cross_attn", "weight_ffn"}
