"""Configurations of training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unprompt.captioners.config import TrainConfig, load_config, read_config
from unprompt.captioners.interface import CaptionerError


def test_defaults_and_round_trip() -> None:
    config = load_config()
    assert config == TrainConfig()
    assert read_config(TrainConfig, json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_files_of_both_kinds(tmp_path: Path, suffix: str) -> None:
    values = {"batch": 256, "optimizer": {"learning_rate": 1, "clip": 0.5}, "model": {"dim": 64}}
    toml = "batch = 256\n[optimizer]\nlearning_rate = 1\nclip = 0.5\n[model]\ndim = 64\n"
    path = tmp_path / f"run.{suffix}"
    path.write_text(json.dumps(values) if suffix == "json" else toml)
    config = load_config(path, ["optimizer.clip=2.5", "data.text=plain", "data.one_of_file=true", "model.name=x=y"])
    assert (config.batch, config.optimizer.learning_rate, config.optimizer.clip) == (256, 1.0, 2.5)
    assert config.data.text == "plain"
    assert config.data.one_of_file
    assert config.model == {"dim": 64, "name": "x=y"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", r"unknown option epoch: did you mean epochs\?"),
        ("optimizer.lr=3", r"unknown option optimizer\.lr: use one of learning_rate"),
        ("batch=0", "batch is 0: give 1 or more"),
        ("batch=many", "option batch is 'many': give a value of type int"),
        ("batch=true", "option batch is True: give a value of type int"),
        ("batch", "setting 'batch' is not key=value"),
        ("precision=half", "precision is 'half': use one of auto, float32, bfloat16"),
        ("data.split=random", r"data\.split is 'random': use one of grouped"),
        ("data=3", "option data is 3: it is a table of options"),
        ("optimizer.learning_rate=0", r"optimizer\.learning_rate is 0"),
        ("data.max_tokens=2", r"data\.max_tokens is 2: give 3 or more"),
    ],
)
def test_bad_settings_are_named_on_one_line(setting: str, message: str) -> None:
    with pytest.raises(CaptionerError, match=message) as caught:
        load_config(None, [setting])
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"cannot read the configuration .*none\.toml"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("batch = = 3")
    with pytest.raises(CaptionerError, match=r"bad\.toml is no TOML or JSON"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(CaptionerError, match="holds list, not a table"):
        load_config(tmp_path / "list.json")
