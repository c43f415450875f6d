"""Captioners by name."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tiny_captioner import SHAPES
from unprompt.captioners import registry
from unprompt.captioners.checkpoint import Card, save_checkpoint
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.registry import OTHERS, TRAINABLE, build_model, load_captioner, model_class, packaged
from unprompt.captioners.tokenizer import train_bpe

SHAPE = {"vocabulary": 300, "max_tokens": 16, "grid_dim": 12, "grid_tokens": 4}


def test_naming_captioners_is_light() -> None:
    code = (
        "import sys; import unprompt.systems.registry; from unprompt.captioners.registry import packaged; "
        "from unprompt.systems.weights import weights_key; assert all(weights_key(name) for name in packaged()); "
        "assert not {'torch', 'faiss', 'transformers', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(TRAINABLE))
def test_every_name_has_its_class(name: str) -> None:
    assert model_class(name).name == name


def test_unknown_names_and_options_are_named() -> None:
    with pytest.raises(CaptionerError, match="unknown captioner 'cnn': use one of lstm, transformer, bridge"):
        model_class("cnn")
    with pytest.raises(CaptionerError, match=r"unknown option model\.width of lstm: use one of attention_dim, dropout"):
        build_model("lstm", {"width": 3}, **SHAPE)
    with pytest.raises(CaptionerError, match=r"unknown option model\.vocabulary of lstm"):
        build_model("lstm", {"vocabulary": 3}, **SHAPE)


@pytest.mark.parametrize("options", [{"dim": 30, "heads": 4}, {"dim": "wide"}, {"dropout": 2.0}])
def test_options_that_cannot_be_built_are_one_line(options: dict[str, object]) -> None:
    with pytest.raises(CaptionerError) as caught:
        build_model("transformer", options, **SHAPE)
    assert "\n" not in str(caught.value)


def test_a_bridge_is_built_on_a_trained_prompt_lm(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tokenizer = train_bpe(["a red dog", "a house"], 300)
    shape = {**SHAPE, "vocabulary": tokenizer.vocabulary}
    language_model = build_model(
        "prompt-lm", {**SHAPES["prompt-lm"], "layers": 2, "positions": 40}, vocabulary=tokenizer.vocabulary
    )
    save_checkpoint(tmp_path, Card("prompt-lm"), language_model, tokenizer)
    options = {"language_model": str(tmp_path), "dim": 16, "heads": 2, "layers": 1, "feedforward": 32, "queries": 3}
    bridge = build_model("bridge", options, **shape)
    embedding = language_model.weights()["transformer.wte.weight"]
    assert any(
        weight.shape == embedding.shape and torch.allclose(weight, embedding, atol=1e-3)
        for weight in bridge.weights().values()
    )
    with pytest.raises(CaptionerError, match=r"tokens, the tokenizer 999: set tokenizer\.file to the language model's"):
        build_model("bridge", options, **{**shape, "vocabulary": 999})
    json.dumps(bridge.config.to_dict())


@pytest.mark.parametrize("prefix", sorted(OTHERS))
def test_others_are_loaded_by_their_prefix(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    module, function = OTHERS[prefix].split(":")
    monkeypatch.setattr(import_module(module), function, lambda name, device: asked.append((name, device)))
    load_captioner(f"{prefix}:some/name:with-colon", "cpu")
    assert asked == [("some/name:with-colon", "cpu")]


def test_captioners_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionerError, match="no captioner 'nothing': give a folder that `unprompt train` wrote"):
        load_captioner("nothing")
    with pytest.raises(CaptionerError, match=r"no .*config\.json"):
        load_captioner(str(tmp_path))
    tokenizer = train_bpe(["a red dog", "a house"], 300)
    for name in ("lstm", "prompt-lm"):
        shape = {"vocabulary": tokenizer.vocabulary, "max_tokens": 16}
        model = build_model(
            name, SHAPES[name], **shape, **({"grid_dim": 12, "grid_tokens": 4} if name == "lstm" else {})
        )
        save_checkpoint(tmp_path / name, Card(name), model, tokenizer)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    assert packaged() == ["lstm"]
    with pytest.raises(CaptionerError, match="or one of lstm, ofa:NAME, blip:NAME"):
        load_captioner("nothing")
    with pytest.raises(CaptionerError, match="holds a prompt-lm, which sees no pictures"):
        load_captioner("prompt-lm")
