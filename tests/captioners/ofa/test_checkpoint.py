from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from captioners.ofa.conftest import random_model, small_config
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.ofa.checkpoint import QUESTION, load_model, read_config, read_task, tied_names
from unprompt.captioners.ofa.config import OfaConfig

CONFIG = small_config(max_position_embeddings=30)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_model(CONFIG).state_dict()


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def write(folder: Path, state: Any, name: str = "pytorch_model.bin") -> Path:
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / name)
    return folder


def same(folder: Path, state: dict[str, Tensor], config: OfaConfig = CONFIG) -> bool:
    loaded = load_model(folder, config).state_dict()
    return set(loaded) == set(state) and all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_checkpoint_is_loaded_by_name(tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert same(write(tmp_path, state), state)
    model = load_model(tmp_path, CONFIG)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_embeddings_may_be_held_once_under_any_of_their_names(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for name in tied_names(CONFIG):
        once = {key: value for key, value in copy(state).items() if key == name or key not in tied_names(CONFIG)}
        assert same(write(tmp_path, once, "model.safetensors"), state)


def test_the_token_embeddings_are_in_memory_once(tmp_path: Path, state: dict[str, Tensor]) -> None:
    loaded = load_model(write(tmp_path, copy(state)), CONFIG).state_dict()
    assert len({loaded[name].data_ptr() for name in tied_names(CONFIG)}) == 1


def test_a_separate_projection_stays_separate(tmp_path: Path) -> None:
    config = small_config(share_decoder_input_output_embed=False)
    state = random_model(config).state_dict()
    assert not torch.equal(state["decoder.output_projection.weight"], state["decoder.embed_tokens.weight"])
    assert same(write(tmp_path, state), state, config)


def test_half_precision_is_read_into_single(tmp_path: Path, state: dict[str, Tensor]) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    single = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    assert same(write(tmp_path, half), single)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"model.{name}": value for name, value in state.items()},
        lambda state: {**state, "encoder.version": torch.tensor([3.0]), "decoder.version": torch.tensor([3.0])},
        lambda state: {name: value for name, value in state.items() if "_bucket" not in name and "_idx" not in name},
    ],
    ids=["modelscope's trainer", "fairseq's version", "without tables"],
)
def test_what_official_tools_add_or_leave_out_does_not_matter(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    assert same(write(tmp_path, change(copy(state))), state)


def test_gamma_is_called_weight(tmp_path: Path) -> None:
    config = small_config(use_gamma_feature=True)
    state = random_model(config).state_dict()
    named = {name.replace("weight_self_attn", "gamma_self_attn"): value for name, value in state.items()}
    assert set(named) != set(state)
    assert same(write(tmp_path, named), state, config)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "encoder.pos_ln.weight"), "Missing key"),
        (lambda state: {**state, "encoder.more": torch.zeros(1)}, "Unexpected key"),
        (lambda state: {**state, "encoder.pos_ln.weight": torch.zeros(3)}, "size mismatch"),
        (lambda state: {**state, "decoder.embed_tokens.weight": torch.zeros(60, 16)}, "more than one"),
        (lambda state: {"state_dict": state}, "holds no plain state_dict"),
        (lambda state: [1, 2], "holds no plain state_dict"),
        (lambda state: {"args": Path("code")}, "holds code and not only weights"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    with pytest.raises(CaptionerError, match=message) as raised:
        load_model(write(tmp_path, change(copy(state))), CONFIG)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CaptionerError) as raised:
        load_model(tmp_path, CONFIG)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        load_model(tmp_path, CONFIG)
    with pytest.raises(CaptionerError, match=r"there is no .*config\.json"):
        read_config(tmp_path)
    for content, message in (
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        ('{"model_type": "gpt2"}', "gpt2"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CaptionerError, match=message):
            read_config(tmp_path)


def test_the_task_is_the_size_s_own_or_modelscope_s(tmp_path: Path) -> None:
    config = OfaConfig(d_model=768)
    task = read_task(tmp_path, config)
    assert (task.size, task.mean, task.std, task.question) == (384, (0.5,) * 3, (0.5,) * 3, QUESTION)
    assert read_task(tmp_path, config, size=480).size == 480
    values = {"patch_image_size": 224, "prompt": " what?", "imagenet_default_mean_and_std": True}
    (tmp_path / "configuration.json").write_text(json.dumps({"task": "image-captioning", "model": values}))
    task = read_task(tmp_path, config)
    assert (task.size, task.question, task.mean[0], task.std[2]) == (224, " what?", 0.485, 0.225)
    assert read_task(tmp_path, config, size=480).size == 480


@pytest.mark.parametrize("values", [{"patch_image_size": 250}, {"patch_image_size": 688}, {"patch_image_size": "480"}])
def test_pictures_of_a_size_that_has_no_positions_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "configuration.json").write_text(json.dumps({"model": values}))
    with pytest.raises(CaptionerError, match="use a multiple of 16 up to 672"):
        read_task(tmp_path, OfaConfig())


def test_a_chinese_model_is_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "configuration.json").write_text(json.dumps({"model": {"language": "zh"}}))
    with pytest.raises(CaptionerError, match="is an OFA for 'zh': only English"):
        read_task(tmp_path, read_config(tmp_path))
