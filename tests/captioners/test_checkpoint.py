"""Checkpoint folders, and the language model of prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_captioner import SHAPES
from unprompt.captioners.checkpoint import Card, load_checkpoint, save_checkpoint
from unprompt.captioners.interface import CaptionerError, CaptionModel, Memory
from unprompt.captioners.prompt_lm import PromptLM, PromptScorer
from unprompt.captioners.registry import build_model
from unprompt.captioners.tokenizer import CaptionTokenizer, train_bpe

TEXTS = ["a red dog on the beach", "portrait, oil on canvas", "a dog"]
TOKENIZER = train_bpe(TEXTS, 300)


def build(name: str) -> CaptionModel:
    torch.manual_seed(3)
    shape = {"vocabulary": TOKENIZER.vocabulary, "max_tokens": 16}
    if name != "prompt-lm":
        shape |= {"grid_dim": 12, "grid_tokens": 4, "neighbour_dim": 6}
    return build_model(name, SHAPES[name], **shape).eval()


def tokens_of(tokenizer: CaptionTokenizer) -> torch.Tensor:
    return torch.from_numpy(tokenizer.padded(tokenizer.encode(TEXTS, 16)))


@pytest.mark.parametrize("name", ["lstm", "transformer", "prompt-lm"])
def test_a_checkpoint_gives_the_model_back(name: str, tmp_path: Path) -> None:
    model = build(name)
    card = Card(name, "tiny", "f" * 64, 3, 0.25, "fake", "e" * 64, "plain", {"epoch": 4})
    save_checkpoint(tmp_path / "c", card, model, TOKENIZER)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.card == card
    assert loaded.model.config == model.config
    assert loaded.tokenizer.encode(TEXTS, 16) == TOKENIZER.encode(TEXTS, 16)
    memory: Any = Memory(torch.randn(3, 4, 12), torch.randn(3, 2, 6)) if name != "prompt-lm" else None
    with torch.inference_mode():
        ours, theirs = (each(memory, tokens_of(TOKENIZER)) for each in (loaded.model, model))
    assert torch.allclose(ours, theirs, atol=0.02)
    assert not loaded.model.training
    assert all(tensor.dtype == torch.float32 for tensor in loaded.model.weights().values())


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    model = build("transformer")
    save_checkpoint(tmp_path, Card("transformer"), model, TOKENIZER)
    numbers = sum(tensor.numel() for tensor in model.weights().values())
    assert numbers * 2 < (tmp_path / "model.safetensors").stat().st_size < numbers * 2 + 16384  # the names


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"no .*config\.json: give a folder that `unprompt train` wrote"):
        load_checkpoint(tmp_path)
    folder = tmp_path / "c"
    save_checkpoint(folder, Card("lstm"), build("lstm"), TOKENIZER)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"hidden_dim": 16', '"hidden_dim": 17'))
    with pytest.raises(CaptionerError, match="the weights are not of this lstm"):
        load_checkpoint(folder)
    (folder / "config.json").write_text(config.replace('"hidden_dim"', '"hidden_size"'))
    with pytest.raises(CaptionerError, match="is not of this version"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CaptionerError, match=r"config\.json is no captioner's"):
        load_checkpoint(folder)
    (folder / "config.json").write_text(config)
    train_bpe(TEXTS, 280).save(folder / "tokenizer.json")
    with pytest.raises(CaptionerError, match="take both files from one run"):
        load_checkpoint(folder)
    TOKENIZER.save(folder / "tokenizer.json")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CaptionerError, match=r"cannot read .*model\.safetensors"):
        load_checkpoint(folder)


def test_a_prompt_lm_is_a_gpt2_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from unprompt.captioners.language_model import import_transformers

    transformers = import_transformers()
    model = build("prompt-lm")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_checkpoint(tmp_path, Card("prompt-lm"), model, TOKENIZER)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).float().eval()
    ours = load_checkpoint(tmp_path).model
    tokens = tokens_of(TOKENIZER)
    with torch.inference_mode():
        expected = theirs(input_ids=tokens).logits
        found = ours(None, tokens)  # type: ignore[arg-type]
    assert expected.std() > 0.5
    assert (found - expected).abs().max() < 1e-4
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (TOKENIZER.begin, TOKENIZER.end)


def test_scores_of_prompts_are_mean_log_probabilities(tmp_path: Path) -> None:
    model = build("prompt-lm")
    save_checkpoint(tmp_path, Card("prompt-lm"), model, TOKENIZER)
    scorer = PromptScorer.load(tmp_path)
    texts = [*TEXTS, "", "a dog"] * 30
    scores = scorer.log_likelihoods(texts)
    for text, score in zip(texts[:5], scores[:5], strict=True):
        (row,) = TOKENIZER.encode([text], 96)
        with torch.inference_mode():
            logs = scorer.model(None, torch.tensor([row])).log_softmax(-1)[0]
        expected = np.mean([float(logs[i, token]) for i, token in enumerate(row[1:])])
        assert score == pytest.approx(expected, abs=1e-4)
    assert np.allclose(scores[:5], scores[-5:], atol=1e-5)
    save_checkpoint(tmp_path, Card("lstm"), build("lstm"), TOKENIZER)
    with pytest.raises(CaptionerError, match="holds a lstm, no prompt-lm"):
        PromptScorer.load(tmp_path)


def test_captions_longer_than_the_positions_are_refused() -> None:
    with pytest.raises(CaptionerError, match="max_tokens 16 is more than 8 positions"):
        build_model("prompt-lm", {**SHAPES["prompt-lm"], "positions": 8}, vocabulary=300, max_tokens=16)
    assert issubclass(PromptLM, CaptionModel)
