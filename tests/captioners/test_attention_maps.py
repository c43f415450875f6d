"""Attention maps: the light lies where the weight is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fakes import FakeEncoder
from tiny_captioner import SHAPES, TOKENS, WIDTH, TinyGrid
from unprompt.captioners.attention_maps import LABEL, attention_to, draw_attention, overlay
from unprompt.captioners.captioner import TrainedCaptioner
from unprompt.captioners.checkpoint import Card, Checkpoint
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.registry import build_model
from unprompt.captioners.tokenizer import train_bpe

GREY = np.full((70, 70, 3), 128, dtype=np.uint8)


def brightness(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=np.float32)


@pytest.mark.parametrize("place", [0, 6, 24, 44, 48])
def test_light_lies_on_the_token(place: int) -> None:
    weights = np.full((7, 7), 0.01, dtype=np.float32)
    weights.flat[place] = 0.5
    light = brightness(overlay(Image.fromarray(GREY), weights))
    y, x = np.unravel_index(light.argmax(), light.shape)
    assert (y // 10, x // 10) == (place // 7, place % 7)


def test_colours_grow_lighter_with_the_weight() -> None:
    ramp = np.linspace(0, 1, 70, dtype=np.float32)[None].repeat(70, axis=0)
    light = brightness(overlay(Image.fromarray(GREY), ramp, opacity=1.0))[35]
    assert bool((np.diff(light) >= -1).all())
    assert light[0] < 10 < 240 < light[-1]


def test_opacity_lets_the_picture_through() -> None:
    weights = np.eye(7, dtype=np.float32)
    clear = np.asarray(overlay(Image.fromarray(GREY), weights, opacity=0.0))
    assert np.array_equal(clear, GREY)
    assert not np.array_equal(np.asarray(overlay(Image.fromarray(GREY), weights, opacity=0.5)), GREY)


def test_a_sheet_has_a_panel_for_the_picture_and_each_word() -> None:
    weights = np.full((6, 49), 1 / 49, dtype=np.float32)
    weights[2] = np.eye(49)[46]  # row 6, column 4
    sheet = draw_attention(GREY, ["a", "red", "cat", "by", "night", "sky"], weights, columns=3, side=70)
    assert sheet.size == (3 * 70, 3 * (70 + LABEL))
    first = np.asarray(sheet)[LABEL : LABEL + 70, :70]
    assert np.array_equal(first, GREY), "the picture itself comes first"
    cat = brightness(sheet)[70 + LABEL + LABEL : 2 * (70 + LABEL), :70]
    y, x = np.unravel_index(cat.argmax(), cat.shape)
    assert (y // 10, x // 10) == (6, 4)
    assert brightness(sheet)[:LABEL, 70:].min() < 128, "the word is written"


def test_neighbours_are_named_and_do_not_shift_the_grid() -> None:
    plain = np.full((1, 49), 0.01, dtype=np.float32)
    plain[0, 10] = 0.5
    told = np.concatenate([plain, [[0.3, 0.2]]], axis=1).astype(np.float32)
    without = np.asarray(draw_attention(GREY, ["cat"], plain, side=120))
    with_them = np.asarray(draw_attention(GREY, ["cat"], told, side=120))
    assert np.array_equal(without[LABEL:], with_them[LABEL:])
    assert not np.array_equal(without[:LABEL], with_them[:LABEL])


def test_long_words_stay_in_their_panel() -> None:
    weights = np.full((2, 49), 1.0, dtype=np.float32)
    sheet = draw_attention(GREY, ["w" * 80, ""], weights, columns=3, side=60)
    label = brightness(sheet)[:LABEL]
    assert label[:, 60:120].min() < 128
    assert label[:, 120:].min() == 255


def test_no_weight_anywhere_is_drawn_dark() -> None:
    assert brightness(overlay(Image.fromarray(GREY), np.zeros((7, 7), np.float32), opacity=1.0)).max() < 10


@pytest.mark.parametrize("shape", [(2, 49), (1, 48), (49,)])
def test_weights_of_something_else(shape: tuple[int, ...]) -> None:
    with pytest.raises(CaptionerError, match="1 words and a grid of 7x7"):
        draw_attention(GREY, ["cat"], np.zeros(shape, np.float32))


def captioner(name: str, neighbours: int = 0) -> TrainedCaptioner:
    torch.manual_seed(0)
    tokenizer = train_bpe(["a red dog by night", "a house"], 290)
    shape = {"vocabulary": tokenizer.vocabulary, "max_tokens": 20, "grid_dim": WIDTH, "grid_tokens": TOKENS}
    model = build_model(name, SHAPES[name], **shape, neighbour_dim=FakeEncoder().dim if neighbours else 0).eval()
    card = Card(name, "tiny", TinyGrid().fingerprint, neighbours)
    return TrainedCaptioner(name, Checkpoint(card, model, tokenizer), TinyGrid(), FakeEncoder().encode_texts)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_a_word_has_the_mean_of_its_tokens(name: str) -> None:
    writer, image = captioner(name), Image.fromarray(GREY)
    words, weights = attention_to(writer, image, "red submarine")
    assert words == ["red", "submarine"]
    assert weights.shape == (2, TOKENS)
    assert weights.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    ids = writer.tokenizer.encode(["red submarine"], 20)[0]
    assert len(ids) > 5, "submarine is several tokens"
    model: Any = writer.model
    with torch.no_grad():
        each = model.attention_weights(writer.memory(writer.grids([image]), None), torch.tensor([ids]))[0].numpy()
    last = len(writer.tokenizer.encode([" submarine"], 20)[0]) - 2
    assert weights[1] == pytest.approx(each[len(ids) - 2 - last : len(ids) - 2].mean(axis=0))


def test_neighbours_are_looked_at_too() -> None:
    _, weights = attention_to(captioner("lstm", 2), Image.fromarray(GREY), "red dog", ["a house", "a red dog"])
    assert weights.shape == (2, TOKENS + 2)
    assert (weights[:, TOKENS:] > 0).all()


def test_what_has_no_attention_to_show() -> None:
    with pytest.raises(CaptionerError, match="prompt ' ' has no words"):
        attention_to(captioner("lstm"), Image.fromarray(GREY), " ")
    blind = captioner("lstm")
    blind.model = build_model("prompt-lm", SHAPES["prompt-lm"], vocabulary=290)
    with pytest.raises(CaptionerError, match="a prompt-lm does not look word by word"):
        attention_to(blind, Image.fromarray(GREY), "red")
