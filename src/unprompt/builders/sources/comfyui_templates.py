"""Format "comfyui-templates": ComfyUI's workflow templates, whose text-to-image ones hold the prompt of their picture.

The workflow is ``NAME.json``, the picture ``NAME-1.webp``. A template counts when its index calls it text to image and
nothing else, it starts from no picture, shows one picture, and its prompt reaches the sampler as it was written.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unprompt.builders.sources.common import (
    NO_PROMPT,
    NOT_TEXT_TO_IMAGE,
    clean_metadata,
    clean_prompt,
    is_hidden,
    is_picture,
)
from unprompt.errors import SourceError
from unprompt.pictures.opening import UNREADABLE
from unprompt.types import Entry, Picture, Skipped

SPEC = "comfyui-templates"
PACKAGES = "comfyui_workflow_templates_"
OTHER_PROMPT = "made from another prompt"

TEXT_TO_IMAGE = "Text to Image"
# What a template does besides; "API", "Image", "Int8", "Turbo" and the like say how, not what.
_OTHER_TASKS = frozenset(
    {"Image Edit", "Inpainting", "Outpainting", "ControlNet", "Image Upscale", "Style Reference", "Style Transfer",
     "Character Reference", "Relight", "Video", "Audio", "3D", "Image to Video", "Text to Video", "Image to 3D",
     "Text to 3D", "Text to Audio", "Text Generation", "Depth", "Remove Background", "Layer Decompose"}
)  # fmt: skip
_COMPARISONS = frozenset({"compareSlider", "hoverDissolve"})
_SYSTEM_END = "<Prompt Start>"
"""Lumina's convention: what stands before it tells the text encoder how to read, and is no part of the prompt."""

REPLACED_PICTURES = frozenset(
    {
        "flux_schnell",  # asks for a galaxy in a bottle, shows three armoured angels
        "hidream_i1_full",  # asks for a red tree, shows a woman in black
        "image_chroma_text_to_image",  # asks for a tiger's eye, shows a leopard in a forest
        "sd3.5_simple_example",  # asks for a galaxy in a bottle, shows a woman's face
        "sdxl_refiner_prompt_example",  # asks for a galaxy in a bottle, shows an astronaut
        "sdxl_simple_example",  # asks for a galaxy in a bottle, shows a woman reading
        "sdxlturbo_example",  # asks for a galaxy in a bottle, shows a puppy
    }
)
"""Templates whose published picture was exchanged and no longer shows what their workflow asks for (seen by eye)."""


class ComfyUITemplatesSource:
    """The installed template packages, or a folder with such workflows and pictures, in the order of their names."""

    format = "comfyui-templates"

    def __init__(self, spec: str) -> None:
        self.folders = _installed_folders() if spec == SPEC else [Path(spec)]
        if not self.folders:
            raise SourceError(
                "the ComfyUI template packages are not installed; pip install 'unprompt[demo]', or name a folder"
            )
        self._index = _read_index(self.folders)
        self._workflows, self._pictures = _list(self.folders)
        if not self._workflows:
            raise SourceError(f"{spec}: no ComfyUI workflow with a picture (NAME.json with NAME-1.webp) in it")

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for name in sorted(self._workflows):
            about = self._index.get(name, {})
            if self._index and TEXT_TO_IMAGE not in about.get("tags", ()):
                continue  # hundreds of templates for other tasks: not entries that were left out
            yield self._read(name, about)

    def _read(self, name: str, about: Mapping[str, Any]) -> Entry | Skipped:
        from unprompt.pictures.comfyui import read_generation

        picture = Picture(str(self._pictures[name][0]))
        problem = _other_task(about) or ("shows several pictures" if len(self._pictures[name]) > 1 else "")
        if problem:
            return Skipped(picture.uri, NOT_TEXT_TO_IMAGE, problem)
        if self._index and name in REPLACED_PICTURES:
            return Skipped(picture.uri, OTHER_PROMPT, "the published picture was exchanged")
        try:
            generation = read_generation(json.loads(self._workflows[name].read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return Skipped(picture.uri, UNREADABLE, f"{name}.json is no ComfyUI workflow ({type(error).__name__})")
        if generation is None:
            return Skipped(picture.uri, NO_PROMPT, f"no text leads to the output of {name}.json")
        if generation.starts_from:
            return Skipped(picture.uri, NOT_TEXT_TO_IMAGE, f"starts from {', '.join(generation.starts_from)}")
        if generation.rewritten or not generation.certain:
            return Skipped(picture.uri, NO_PROMPT, "the prompt is rewritten on its way to the sampler")
        prompt = clean_prompt(generation.prompt.rpartition(_SYSTEM_END)[2])
        if not prompt or prompt.startswith("{"):
            return Skipped(picture.uri, NO_PROMPT, "the prompt is a data structure, not a text")
        return Entry(prompt, picture, _metadata(name, about, generation.metadata, bool(self._index)))


def _metadata(name: str, about: Mapping[str, Any], settings: Mapping[str, Any], published: bool) -> dict[str, Any]:
    """Settings of the workflow; the index knows the model's own name, the workflow only its file's."""
    values = {**settings, "template": name, "title": about.get("title")}
    if about.get("models"):
        values["model"] = about["models"][0]
    if published:
        values |= {"source": "comfyui-workflow-templates", "license": "MIT"}
    return clean_metadata(values)


def _other_task(about: Mapping[str, Any]) -> str:
    """Why the index says that the picture is not made from words alone, or "" when it does not."""
    others = sorted(_OTHER_TASKS.intersection(about.get("tags", ())))
    if others:
        return f"tagged {', '.join(others)}"
    if (about.get("io") or {}).get("inputs"):
        return "takes files as input"
    if about.get("thumbnailVariant") in _COMPARISONS:
        return "shows a comparison"
    return "" if about.get("mediaType", "image") == "image" else f"makes {about['mediaType']}"


def _installed_folders() -> list[Path]:
    folders = []
    for name in sorted(module.name for module in pkgutil.iter_modules() if module.name.startswith(PACKAGES)):
        found = importlib.util.find_spec(name)
        for location in (found.submodule_search_locations or []) if found else []:
            folder = Path(location) / "templates"
            if folder.is_dir():
                folders.append(folder)
    return folders


def _read_index(folders: list[Path]) -> dict[str, dict[str, Any]]:
    """What ``index.json`` says of each template, by name; empty when there is none."""
    for folder in folders:
        try:
            categories = json.loads((folder / "index.json").read_bytes())
            return {about["name"]: about for category in categories for about in category["templates"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _list(folders: list[Path]) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Workflows that have a picture, and their pictures, by template name."""
    files = [child for folder in folders for child in sorted(folder.iterdir()) if not is_hidden(child.name)]
    workflows = {child.stem: child for child in files if child.suffix.lower() == ".json" and child.is_file()}
    pictures: dict[str, list[Path]] = {}
    for child in files:
        if is_picture(child.name):
            base, _, number = child.stem.rpartition("-")
            name = base if number.isdigit() and base in workflows else child.stem
            if name in workflows:
                pictures.setdefault(name, []).append(child)
    return {name: workflows[name] for name in pictures}, pictures


def holds_templates(folder: Path) -> bool:
    """Whether any picture in the folder has a ComfyUI workflow beside it."""
    workflows, _ = _list([folder])
    for path in list(workflows.values())[:20]:
        try:
            if isinstance(json.loads(path.read_bytes()).get("nodes"), list):
                return True
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
    return False
