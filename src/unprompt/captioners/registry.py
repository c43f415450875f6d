"""Captioners by name: those that are trained here, and what loads the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unprompt.errors import CaptionerError

if TYPE_CHECKING:
    from unprompt.captioners.interface import CaptionModel
    from unprompt.types import Captioner

TRAINABLE: dict[str, str] = {
    "lstm": "unprompt.captioners.lstm:LSTMCaptioner",
    "transformer": "unprompt.captioners.transformer:TransformerCaptioner",
    "bridge": "unprompt.captioners.bridge:BridgeCaptioner",
    "prompt-lm": "unprompt.captioners.prompt_lm:PromptLM",
}
"""Name -> "module:class", imported on use."""

OTHERS: dict[str, str] = {
    "ofa": "unprompt.captioners.ofa.captioner:load",
    "blip": "unprompt.captioners.blip:load",
}
"""Prefix -> "module:function" of captioners that are not trained here, called as ``load(rest_of_the_name, device)``."""

WEIGHTS = Path(__file__).parent / "weights"
"""Holds one checkpoint folder for each captioner that the package brings, and the language model under the bridges."""

DEFAULT = "transformer"
"""The packaged captioner that does best on the development split when it is told no neighbours."""

LANGUAGE_MODEL = "prompt-lm"
"""What sees no pictures, so is no captioner."""


def model_class(name: str) -> type[CaptionModel]:
    """The class of a trainable captioner.

    Raises:
        CaptionerError: there is none of this name.
    """
    if name not in TRAINABLE:
        raise CaptionerError(f"unknown captioner {name!r}: use one of {', '.join(TRAINABLE)}")
    module, attribute = TRAINABLE[name].split(":")
    found: type[CaptionModel] = getattr(import_module(module), attribute)
    return found


def build_model(name: str, options: Mapping[str, Any], **shape: int) -> CaptionModel:
    """A model with random weights: seed torch first.

    Args:
        name: a key of `TRAINABLE`.
        options: of the captioner's own configuration. A bridge's ``language_model`` may be a folder or repository,
            whose weights are taken, instead of a configuration.
        shape: what the data decide: vocabulary, grid_dim, grid_tokens, max_tokens, neighbour_dim.

    Raises:
        CaptionerError: the name or an option is unknown, or sizes do not fit together.
    """
    kind = model_class(name)
    known = {entry.name for entry in fields(kind.config_class)} - shape.keys()
    unknown = sorted(options.keys() - known)
    if unknown:
        raise CaptionerError(f"unknown option model.{unknown[0]} of {name}: use one of {', '.join(sorted(known))}")
    source = options.get("language_model")
    try:
        if isinstance(source, str):
            return _on_language_model(kind, source, {**options, **shape})
        return kind(kind.config_class.from_dict({**options, **shape}))
    except (TypeError, ValueError, AssertionError) as error:
        detail = " ".join(str(error).split())
        raise CaptionerError(f"{name} cannot be built with {dict(options)} ({detail}): correct the options") from None


def _on_language_model(kind: type[CaptionModel], source: str, values: dict[str, Any]) -> CaptionModel:
    vocabulary = values.pop("vocabulary")
    del values["language_model"]
    model: CaptionModel = kind.with_language_model(source, **values)  # type: ignore[attr-defined]
    if model.config.vocabulary != vocabulary:
        raise CaptionerError(
            f"{source} has {model.config.vocabulary} tokens, the tokenizer {vocabulary}: "
            "set tokenizer.file to the language model's own tokenizer.json"
        )
    return model


def load_captioner(name: str, device: str = "cpu") -> Captioner:
    """Loads a captioner by the path of a checkpoint folder, or by name.

    Args:
        name: a folder that ``unprompt train`` wrote, one of `packaged`, "ofa:NAME_OR_FOLDER" or
            "blip:NAME_OR_FOLDER".
        device: where it computes.

    Raises:
        CaptionerError: there is no such captioner, or its folder is damaged.
        EncoderError: a hub is needed and cannot be reached.
    """
    from unprompt.captioners.captioner import TrainedCaptioner

    folder = Path(name).expanduser()
    if folder.is_dir():
        return TrainedCaptioner.load(folder, device)
    prefix, _, rest = name.partition(":")
    if prefix in OTHERS and rest:
        module, function = OTHERS[prefix].split(":")
        captioner: Captioner = getattr(import_module(module), function)(rest, device)
        return captioner
    if (WEIGHTS / name / "config.json").is_file():
        return TrainedCaptioner.load(WEIGHTS / name, device)
    known = ", ".join([*packaged(), *(f"{prefix}:NAME" for prefix in OTHERS)])
    raise CaptionerError(f"no captioner {name!r}: give a folder that `unprompt train` wrote, or one of {known}")


def packaged() -> list[str]:
    """The names of the captioners that the package brings, sorted; language models alone are none."""
    found = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json")) if WEIGHTS.is_dir() else []
    return [name for name in found if name != LANGUAGE_MODEL]
