"""Causal language models of transformers' behind a prefix: build, load, freeze, and write token by token.

`bridge` and BLIP-2 put a picture before a language model in the same way: as embeddings in front of its first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from unprompt.captioners.interface import CaptionerError
from unprompt.encoders.hub import local_folder, no_progress_bar, obtain
from unprompt.encoders.torchvision_fix import ensure_torchvision

FILES = (("config.json",), ("model.safetensors", "model.safetensors.index.json"))
EXTRAS = ("model-*-of-*.safetensors", "generation_config.json")


def import_transformers() -> Any:
    """The module, imported only now: it takes seconds.

    Raises:
        CaptionerError: it is not installed.
    """
    ensure_torchvision()
    try:
        return import_module("transformers")
    except ImportError as error:
        raise CaptionerError(
            f"transformers cannot be imported ({error}): pip install 'unprompt[transformers]'"
        ) from error


def build(config: Mapping[str, Any]) -> Any:
    """A language model with random weights.

    Args:
        config: what ``to_diff_dict`` of its configuration gives: "model_type" and all that is not the default.

    Raises:
        CaptionerError: it is no configuration of a causal language model.
    """
    transformers = import_transformers()
    try:
        values = dict(config)
        parsed = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
        return transformers.AutoModelForCausalLM.from_config(parsed)
    except Exception as error:  # transformers raises many kinds for values that do not fit together
        raise CaptionerError(
            f"language model {config.get('model_type')!r} cannot be built ({_line(error)}): give a causal language "
            "model's model_type and sizes that fit together"
        ) from error


def load(source: str) -> Any:
    """A trained language model, in float32.

    Args:
        source: a folder that ``save_pretrained`` wrote, or a hub repository, fetched as `unprompt.encoders.hub` says.

    Raises:
        EncoderError: the hub is needed and cannot be reached, or the name is none.
        CaptionerError: the folder holds no causal language model.
    """
    transformers = import_transformers()
    folder = local_folder(source) or obtain(source, FILES, extras=EXTRAS)
    return from_folder(transformers.AutoModelForCausalLM, folder, dtype=torch.float32)


def description(model: Any) -> dict[str, Any]:
    """A model's configuration as `build` takes it, without what only names its files."""
    unwanted = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    values = {key: value for key, value in model.config.to_diff_dict().items() if key not in unwanted}
    return {**values, "model_type": model.config.model_type}


def from_folder(auto: Any, folder: Any, **options: Any) -> Any:
    """Loads a model by one of transformers' classes from a folder, complete and from safetensors only.

    Raises:
        CaptionerError: the folder does not hold such a model, or lacks some of its weights.
    """
    options |= {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        with no_progress_bar():
            model, report = auto.from_pretrained(str(folder), output_loading_info=True, **options)
    except Exception as error:  # transformers raises many kinds for a file that is missing or damaged
        raise CaptionerError(
            f"{folder} cannot be loaded by {auto.__name__} ({_line(error)}): pass a folder that save_pretrained wrote"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers only warns, and leaves them random
        raise CaptionerError(f"{folder} lacks {len(missing)} weights, {missing[0]} first: save the whole model again")
    return model


def freeze(model: Any, layers: int) -> list[nn.Module]:
    """Freezes all but the last layers and, with any of them, the norm after them.

    Args:
        model: from `build` or `load`; its parameters' ``requires_grad`` is set.
        layers: how many of the last layers stay trainable; 0 freezes all, -1 nothing, embeddings included.

    Returns:
        The modules that stay trainable.

    Raises:
        CaptionerError: it has fewer layers, or none that could be found.
    """
    if layers == -1:
        model.requires_grad_(True)
        return [model]
    blocks, norms = _blocks(model)
    if not 0 <= layers <= len(blocks):
        raise CaptionerError(f"unfrozen_layers {layers}: the language model has {len(blocks)}; use -1 for all of it")
    model.requires_grad_(False)
    kept = [*blocks[len(blocks) - layers :], *norms] if layers else []
    for module in kept:
        module.requires_grad_(True)
    return kept


def _blocks(model: Any) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers, first to last, and the norms that lie beside their list: families name them differently."""
    count = model.config.get_text_config().num_hidden_layers
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                norms = [
                    module
                    for name, module in parent.named_children()
                    if "norm" in type(module).__name__.lower() and "embed" not in name
                ]
                return list(child), norms
    raise CaptionerError(f"no list of {count} layers in {type(model).__name__}: use unfrozen_layers=-1")


def read(model: Any, embeddings: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Reads (B, T, D) embeddings as the first ones of B texts; returns the last one's logits (B, V), and the cache."""
    output = model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1], unpack(output.past_key_values)


def step(model: Any, cache: Mapping[str, Tensor], tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Reads one token (N,) a row after what the cache holds; returns logits (N, V) and the new cache."""
    output = model(input_ids=tokens[:, None], past_key_values=pack(cache), use_cache=True)
    return output.logits[:, -1], unpack(output.past_key_values)


def pack(cache: Mapping[str, Tensor]) -> Any:
    """Keys and values by layer as transformers' own cache, without copying them."""
    count = len(cache) // 2
    pairs = [(cache[f"keys.{i}"], cache[f"values.{i}"]) for i in range(count)]
    return import_module("transformers").DynamicCache(ddp_cache_data=pairs)


def unpack(cache: Any) -> dict[str, Tensor]:
    """The inverse of `pack`: "keys.0", "values.0" and so on, each (N, heads, T, head width)."""
    parts = {}
    for i, layer in enumerate(cache.layers):
        parts[f"keys.{i}"], parts[f"values.{i}"] = layer.keys, layer.values
    return parts


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
