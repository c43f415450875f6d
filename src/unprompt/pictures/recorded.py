"""The prompt a picture carries in its own metadata, whichever program wrote it.

AUTOMATIC1111, Fooocus, InvokeAI and NovelAI are parsed by the ``sd-parsers`` library, ComfyUI's node graph by
`unprompt.pictures.comfyui` (``sd-parsers`` 0.6 needs both of its chunks, and strings the texts of all samplers
together). Two more things are done here instead of by ``sd-parsers`` 0.6: the text is taken out of the picture by
`unprompt.pictures.texts` (its extractors decode all pixels of a PNG, and remember the last JPEG by a memory address
that the next picture can have as well), and what it gives up on (no sampler named, "Negative prompt:" twice, a JSON
with a key missing) is read by the plain rules at the end of this module.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unprompt.types import METADATA_KEYS, Picture

logger = logging.getLogger(__name__)

_SYNONYMS = {
    "cfg": "cfg",
    "cfg_scale": "cfg",
    "cfgscale": "cfg",
    "guidance_scale": "cfg",
    "scale": "cfg",
    "steps": "steps",
    "seed": "seed",
    "noise_seed": "seed",
    "sampler": "sampler",
    "sampler_name": "sampler",
    "scheduler": "sampler",
    "model": "model",
    "base_model": "model",
    "model_weights": "model",
    "negative_prompt": "negative_prompt",
    "negativeprompt": "negative_prompt",
    "uc": "negative_prompt",
    "width": "width",
    "height": "height",
}
"""How the programs name what `METADATA_KEYS` names; the first one present wins."""

_PROMPT_KEYS = ("prompt", "positive_prompt")
_JSON_TEXTS = ("parameters", "invokeai_metadata", "Comment", "UserComment", "sd-metadata")


@dataclass(frozen=True, slots=True)
class RecordedPrompt:
    """What a picture says about its own making.

    Attributes:
        prompt: the positive prompt, stripped, never empty.
        generator: the program that wrote it, such as "AUTOMATIC1111" or "ComfyUI".
        metadata: those of sampler, steps, cfg, seed, model and negative_prompt that it names, typed by `METADATA_KEYS`.
    """

    prompt: str
    generator: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_recorded_prompt(source: str | Path | bytes | Picture | Image.Image) -> RecordedPrompt | None:
    """Reads the prompt that a picture carries in its metadata, without decoding its pixels.

    Args:
        source: a path, encoded bytes, a `Picture`, or an opened Pillow image (only its ``info`` and EXIF are used).

    Returns:
        The prompt, or None when there is none; a picture that is broken or missing has none either.
    """
    from unprompt.pictures.texts import read_texts

    try:
        texts = read_texts(source)
    except Exception as error:  # damaged metadata is "no prompt", whatever the decoder made of it
        logger.debug("no metadata read from %s: %s", source if isinstance(source, str | Path) else type(source), error)
        return None
    return parse_texts(texts) if texts else None


def parse_texts(texts: Mapping[str, str]) -> RecordedPrompt | None:
    """Finds the prompt in a picture's text chunks, by chunk name (EXIF's UserComment under "parameters")."""
    for reader in (_read_with_sd_parsers, _read_comfyui, _read_json, _read_parameters):
        try:
            found = reader(texts)
        except Exception as error:  # each reader may stumble over text that a later one understands
            logger.debug("%s gave up: %s", reader.__name__, error)
            continue
        if found is not None:
            return found
    return None


def _read_comfyui(texts: Mapping[str, str]) -> RecordedPrompt | None:
    if not {"prompt", "workflow"} & set(texts):
        return None
    from unprompt.pictures.comfyui import read_generation

    for key in ("prompt", "workflow"):  # the first is what was executed, the second what stood on the screen
        if key not in texts:
            continue
        generation = read_generation(json.loads(texts[key]))
        if generation is not None and generation.rewritten:
            return None  # what the language model wrote is recorded nowhere
        if generation is not None:
            return _recorded(generation.prompt, "ComfyUI", generation.metadata)
    return None


@functools.cache
def _parsers() -> tuple[Any, ...]:
    from sd_parsers.parsers import MANAGED_PARSERS

    classes: Any = MANAGED_PARSERS
    return tuple(parser() for parser in classes if parser.__name__ != "ComfyUIParser")


def _read_with_sd_parsers(texts: Mapping[str, str]) -> RecordedPrompt | None:
    for parser in _parsers():
        try:
            info = parser.parse(dict(texts))
        except Exception:  # ParserError by contract, but ValueError, AttributeError and others do escape
            continue
        # Not its `full_prompt`, which joins the prompts of all samplers, and is a list for Fooocus.
        sampler = next((sampler for sampler in info.samplers if sampler.prompts), None)
        if sampler is None:
            continue
        values = {str(key): value for key, value in {**info.metadata, **sampler.parameters}.items()}
        values["sampler"] = sampler.name
        values["negative_prompt"] = ", ".join(_distinct(sampler.negative_prompts))
        if sampler.model is not None:
            values["model"] = sampler.model.name or sampler.model.hash
        found = _recorded(", ".join(_distinct(sampler.prompts)), info.generator.value, values)
        if found is not None:
            return found
    return None


def _distinct(prompts: list[Any]) -> list[str]:
    return list(dict.fromkeys(str(prompt).strip() for prompt in prompts if str(prompt).strip()))


def _read_json(texts: Mapping[str, str]) -> RecordedPrompt | None:
    """Any JSON object with a prompt: SwarmUI's ``sui_image_params``, newer InvokeAI and NovelAI, incomplete Fooocus."""
    for key in _JSON_TEXTS:
        text = texts.get(key, "").strip()
        if not text.startswith("{"):
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            continue
        generator = "SwarmUI" if "sui_image_params" in values else {"invokeai_metadata": "InvokeAI"}.get(key, "unknown")
        for inner in ("sui_image_params", "image"):
            if isinstance(values.get(inner), dict):
                values = {**values, **values[inner]}
        if isinstance(values.get("model"), dict):
            values["model"] = values["model"].get("name") or values["model"].get("model_name")
        for prompt_key in _PROMPT_KEYS:
            if isinstance(values.get(prompt_key), str) and values[prompt_key].strip():
                return _recorded(values[prompt_key], generator, values)
    return None


_SETTINGS_LINE = re.compile(r"^(?:Steps|Sampler|CFG scale|Seed|Size|Model(?: hash)?): .*$")
_SETTING = re.compile(r'\s*([A-Za-z][\w \-/]*):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def _read_parameters(texts: Mapping[str, str]) -> RecordedPrompt | None:
    """AUTOMATIC1111's text: the prompt, then perhaps "Negative prompt: ..." lines, then perhaps a line of settings."""
    text = texts.get("parameters", "").replace("\r\n", "\n").strip()
    if not text or text.startswith(("{", "[")):
        return None
    lines = text.split("\n")
    last = max((i for i, line in enumerate(lines) if _SETTINGS_LINE.match(line)), default=len(lines))
    body = "\n" + "\n".join(lines[:last])
    prompt, _, negative = body.partition("\nNegative prompt:")
    values: dict[str, Any] = {"negative_prompt": negative.strip()}
    for key, value in _SETTING.findall("\n".join(lines[last : last + 1])):
        values.setdefault(key.strip().lower().replace(" ", "_"), value.strip().strip('"'))
    return _recorded(prompt, "AUTOMATIC1111", values)


def _recorded(prompt: str, generator: str, values: Mapping[str, Any]) -> RecordedPrompt | None:
    prompt = prompt.replace("\r\n", "\n").replace("\x00", "").strip()
    if not prompt:
        return None
    metadata: dict[str, Any] = {}
    for key, name in _SYNONYMS.items():
        if name in metadata or values.get(key) in (None, ""):
            continue
        try:
            metadata[name] = METADATA_KEYS[name](values[key])
        except (TypeError, ValueError, OverflowError):
            continue
    for key in (
        "width",
        "height",
    ):  # the file's own size is the truth, not the size that was asked for before upscaling
        metadata.pop(key, None)
    return RecordedPrompt(prompt, generator, metadata)
