"""What decides a training run: dataclasses, read from a TOML or JSON file and changed by ``key=value``."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from unprompt.captioners.interface import CaptionerError

Config = TypeVar("Config")

SPLITS = ("grouped", "grouped-90-5-5", "ungrouped-90-5-5")
PRECISIONS = ("auto", "float32", "bfloat16")
TEXTS = ("as-is", "plain")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learnt from.

    Attributes:
        split: "grouped" keeps near-duplicate prompts together, 80 : 10 : 10, as everything else here does;
            "grouped-90-5-5" has the thesis's shares; "ungrouped-90-5-5" is the thesis's own split, by picture, which
            lets a prompt be in training and test at once.
        text: "as-is", or "plain" for the paper's tokenisation: lower case, no punctuation, no numbers.
        max_tokens: the longest caption in tokens, with its first and last special tokens.
        views: augmented views a picture in training (and in the feature cache), besides the picture itself.
        rotation: degrees, of an augmented view.
        flip: probability of mirroring a view.
        erasing: probability of erasing a rectangle of a view.
        one_of_file: an epoch takes one random quarter of each 2x2 grid instead of all four.
    """

    split: str = "grouped"
    text: str = "as-is"
    max_tokens: int = 32
    views: int = 0
    rotation: float = 15.0
    flip: float = 0.5
    erasing: float = 0.25
    one_of_file: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """Which tokens captions are made of.

    Attributes:
        file: a ``tokenizer.json`` (of a model, or of an earlier run), or "" to train a byte-level BPE on the corpus.
        vocabulary: most tokens of a BPE that is trained.
    """

    file: str = ""
    vocabulary: int = 8192


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay.

    Attributes:
        learning_rate: its peak.
        weight_decay: of matrices.
        warmup: steps.
        final: the last learning rate as a share of the peak.
        clip: largest norm of the gradient.
        label_smoothing: share of the target spread over the vocabulary, in training only.
    """

    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 200
    final: float = 0.05
    clip: float = 1.0
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run.

    Attributes:
        seed: of the weights, the order, dropout and the views.
        epochs: at most.
        patience: epochs without a better validation loss before training stops.
        batch: captions a step.
        micro_batch: captions that go through the model together; 0 begins with the whole batch. Halved when memory
            runs out.
        save_every: steps between resumable checkpoints; there is one at the end of each epoch anyway.
        precision: of the forward pass; "auto" is bfloat16 on a GPU that has it, else float32.
        neighbours: prompts of nearest pictures that the model is told; 0 for none.
        model: options of the captioner's own configuration.
    """

    seed: int = 0
    epochs: int = 10
    patience: int = 2
    batch: int = 64
    micro_batch: int = 0
    save_every: int = 200
    precision: str = "auto"
    neighbours: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Rejects what could only fail after minutes.

        Raises:
            CaptionerError: a value is out of range.
        """
        _choice("precision", self.precision, PRECISIONS)
        _choice("data.split", self.data.split, SPLITS)
        _choice("data.text", self.data.text, TEXTS)
        least = {"epochs": self.epochs, "patience": self.patience, "batch": self.batch, "save_every": self.save_every}
        for name, value in least.items():
            _at_least(name, value, 1)
        for name, value in {"neighbours": self.neighbours, "micro_batch": self.micro_batch}.items():
            _at_least(name, value, 0)
        _at_least("data.max_tokens", self.data.max_tokens, 3)
        _at_least("data.views", self.data.views, 0)
        if not self.optimizer.learning_rate > 0:
            raise CaptionerError(f"optimizer.learning_rate is {self.optimizer.learning_rate}: give one above 0")

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON: `read_config` takes it."""
        return asdict(self)


def load_config(path: Path | None = None, settings: Sequence[str] = ()) -> TrainConfig:
    """Reads a configuration file and applies settings to it.

    Args:
        path: a .toml or .json file; None for the defaults.
        settings: "key=value" with dots between tables, such as "optimizer.learning_rate=1e-3"; a value that is not
            JSON is taken as text.

    Raises:
        CaptionerError: the file cannot be read, or a key or value is not valid.
    """
    values: dict[str, Any] = {} if path is None else _read_file(path)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise CaptionerError(f"setting {setting!r} is not key=value, such as batch=64")
        _assign(values, key.strip(), text.strip())
    return read_config(TrainConfig, values)


def read_config(kind: type[Config], values: Mapping[str, Any], at: str = "") -> Config:
    """Builds a (nested) dataclass from JSON-like values.

    Raises:
        CaptionerError: a key is unknown or a value is of another type; the message names it.
    """
    hints = get_type_hints(kind)
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in names), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, names, 1)
        advice = f"did you mean {at}{near[0]}?" if near else f"use one of {', '.join(names)}"
        raise CaptionerError(f"unknown option {at}{unknown}: {advice}")
    return kind(**{key: _convert(hints[key], value, f"{at}{key}") for key, value in values.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise CaptionerError(f"option {name} is {value!r}: it is a table of options")
        return read_config(kind, value, f"{name}.")
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(kind)[0], item, name) for item in value)
    expected = get_origin(kind) or kind
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise CaptionerError(f"option {name} is {value!r}: give a value of type {expected.__name__}")
    return value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise CaptionerError(f"cannot read the configuration {path} ({error.strerror}): check the path") from None
    except ValueError as error:
        raise CaptionerError(f"{path} is no TOML or JSON ({' '.join(str(error).split())}): correct it") from None
    if not isinstance(values, dict):
        raise CaptionerError(f"{path} holds {type(values).__name__}, not a table of options: correct it")
    return values


def _assign(values: dict[str, Any], key: str, text: str) -> None:
    *tables, last = key.split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise CaptionerError(f"setting {key} goes through {table}, which is {inner!r} and no table")
        values = inner
    try:
        values[last] = json.loads(text)
    except ValueError:
        values[last] = text


def _choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise CaptionerError(f"{name} is {value!r}: use one of {', '.join(allowed)}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise CaptionerError(f"{name} is {value}: give {least} or more")
