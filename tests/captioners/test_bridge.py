"""The bridge: what is frozen stays, neighbours as memory and as prefix, families of language models.

What all captioners promise is in test_contract.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from captioner_inputs import memory, tokens
from unprompt.captioners.interface import CaptionerError, Memory, shifted_loss

pytest.importorskip("transformers")

from unprompt.captioners.bridge import BridgeCaptioner, BridgeConfig

TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 11}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, **TOKENS}
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 32, **TOKENS}
LLAMA = {"model_type": "llama", "intermediate_size": 24, **SMALL}
OPT = {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 16, **SMALL}
SIZES: dict[str, Any] = {"vocabulary": 11, "grid_dim": 6, "grid_tokens": 4, "max_tokens": 8, "language_model": GPT2}
SIZES |= {"queries": 3, "dim": 16, "heads": 2, "layers": 2, "feedforward": 24}


def model(**values: Any) -> BridgeCaptioner:
    torch.manual_seed(0)
    return BridgeCaptioner(BridgeConfig(**{**SIZES, **values})).eval()


@pytest.mark.parametrize("language_model", [GPT2, LLAMA, OPT], ids=["gpt2", "llama", "opt"])
@pytest.mark.parametrize("neighbours_as", ["memory", "prefix"])
def test_steps_are_the_forward_pass(language_model: dict[str, Any], neighbours_as: str) -> None:
    captioner = model(neighbour_dim=5, language_model=language_model, neighbours_as=neighbours_as)
    told, text = memory(), tokens()
    state = captioner.start(told)
    for position, logits in enumerate(captioner(told, text).unbind(dim=1)):
        stepped, state = captioner.step(state, text[:, position])
        torch.testing.assert_close(stepped, logits)


def bytes_of(captioner: BridgeCaptioner) -> dict[str, bytes]:
    return {name: parameter.detach().numpy().tobytes() for name, parameter in captioner.named_parameters()}


@pytest.mark.parametrize("language_model", [GPT2, LLAMA, OPT], ids=["gpt2", "llama", "opt"])
@pytest.mark.parametrize("layers", [0, 1, 2, -1])
def test_training_changes_what_is_not_frozen(language_model: dict[str, Any], layers: int) -> None:
    captioner = model(language_model=language_model, unfrozen_layers=layers).train()
    before = bytes_of(captioner)
    optimizer = torch.optim.AdamW(captioner.parameter_groups(0.1), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        shifted_loss(captioner(memory(), tokens()), tokens(), pad=-1).backward()
        optimizer.step()
    after = bytes_of(captioner)
    changed = {name for name in before if before[name] != after[name]}
    frozen = set(captioner.frozen_names())
    assert changed == set(before) - frozen
    assert all(parameter.grad is None for name, parameter in captioner.named_parameters() if name in frozen)
    language = {name for name in changed if name.startswith("language_model.")}
    numbers = {int(part) for name in language for part in name.split(".") if part.isdigit()}
    assert numbers == set(range(3 - layers, 3) if layers >= 0 else range(3))
    assert any("norm" in name or "ln_f" in name for name in language) == (layers != 0)
    assert any("embed" in name or "wte" in name for name in language) == (layers == -1)


def test_frozen_layers_do_not_drop_out() -> None:
    captioner = model(unfrozen_layers=1, dropout=0.0).train()
    layers = captioner.language_model.transformer.h
    assert [layer.training for layer in layers] == [False, False, True]
    assert captioner.blocks.training
    frozen = model(unfrozen_layers=0, dropout=0.0).train()
    torch.testing.assert_close(frozen(memory(), tokens()), frozen(memory(), tokens()))
    assert not captioner.eval().language_model.transformer.h[2].training


def test_queries_read_the_picture_and_the_neighbours() -> None:
    captioner, told, text = model(neighbour_dim=5), memory(), tokens()
    assert captioner.prefix(told).shape == (3, 3, 16)
    alone = captioner(Memory(told.grid), text)
    torch.testing.assert_close(alone[2], captioner(told, text)[2])
    assert not torch.allclose(alone[0], captioner(told, text)[0])
    assert not torch.allclose(captioner(Memory(told.grid + 1), text), alone)


def test_neighbours_stand_in_front() -> None:
    captioner, told = model(neighbour_dim=5, neighbours_as="prefix"), memory()
    assert told.neighbours is not None
    prefix = captioner.prefix(told)
    assert prefix.shape == (3, 5, 16)
    assert captioner.neighbour_prefix is not None
    torch.testing.assert_close(prefix[0, :2], captioner.neighbour_prefix.project(told.neighbours[0]))
    torch.testing.assert_close(prefix[2, :2], captioner.neighbour_prefix.missing.expand(2, -1))
    torch.testing.assert_close(prefix[:, 2:], captioner.prefix(Memory(told.grid)))


def test_a_trained_language_model_is_taken_as_it_is(tmp_path: Path) -> None:
    trained = model().language_model
    trained.save_pretrained(tmp_path)
    torch.manual_seed(5)
    values = {key: value for key, value in SIZES.items() if key not in ("vocabulary", "language_model")}
    captioner = BridgeCaptioner.with_language_model(str(tmp_path), **values)
    ids = tokens()
    torch.testing.assert_close(captioner.eval().language_model(ids).logits, trained.eval()(ids).logits)
    again = BridgeCaptioner(BridgeConfig.from_dict(json.loads(json.dumps(captioner.config.to_dict())))).eval()
    again.load_weights(captioner.weights())
    torch.testing.assert_close(again(memory(), ids), captioner(memory(), ids))
    assert not any(name.endswith("lm_head.weight") for name in captioner.weights()), "tied weights are there twice"
    with pytest.raises(CaptionerError, match="unknown bridge setting 'width'"):
        BridgeCaptioner.with_language_model(str(tmp_path), width=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocabulary": 12}, "vocabulary 12: the language model has 11"),
        ({"unfrozen_layers": 4}, "unfrozen_layers 4: the language model has 3"),
        ({"neighbours_as": "suffix"}, "unknown neighbours_as 'suffix'"),
        ({"language_model": {"model_type": "nothing"}}, "language model 'nothing' cannot be built"),
        ({"language_model": {"n_embd": 16}}, "language model None cannot be built"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptionerError, match=message) as raised:
        model(**values)
    assert "\n" not in str(raised.value)


def test_more_than_the_language_model_reads_is_refused() -> None:
    captioner = model()
    with pytest.raises(CaptionerError, match="3 prefix and 30 caption tokens exceed the language model's 32"):
        captioner(memory(), tokens(length=30))


def test_folders_without_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CaptionerError, match="cannot be loaded by AutoModelForCausalLM"):
        BridgeCaptioner.with_language_model(str(tmp_path))
