"""ComfyUI's graphs, and the template packages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unprompt.builders.sources import open_source
from unprompt.errors import SourceError
from unprompt.pictures.comfyui import read_generation
from unprompt.pictures.comfyui.graph import read_graph
from unprompt.types import Entry, Skipped


class Workflow:
    """Builds a saved workflow, node by node."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.subgraphs: list[dict[str, Any]] = []

    def add(self, kind: str, values: Any = (), mode: int = 0, **inputs: int | None) -> int:
        number = len(self.nodes) + 1
        node: dict[str, Any] = {"id": number, "type": kind, "mode": mode, "widgets_values": list(values), "inputs": []}
        for slot, (name, source) in enumerate(inputs.items()):
            link = None
            if source is not None:
                link = len(self.links) + 1
                self.links.append([link, source, 0, number, slot, "*"])
            node["inputs"].append({"name": name, "link": link})
        self.nodes.append(node)
        return number

    def sample(self, positive: int, **more: int) -> int:
        """Adds all from the sampler to the saved picture."""
        model = self.add("CheckpointLoaderSimple", ["sd.safetensors"])
        negative = self.add("CLIPTextEncode", ["a much longer text of what is not wanted at all"], clip=model)
        latent = more.pop("latent_image", None) or self.add("EmptyLatentImage", [512, 512, 1])
        values = [7, "randomize", 20, 6.5, "euler", "normal", 1]
        sampler = self.add("KSampler", values, model=model, positive=positive, negative=negative, latent_image=latent)
        self.add("SaveImage", ["a file name prefix"], images=self.add("VAEDecode", samples=sampler))
        return sampler

    def data(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "links": self.links, "definitions": {"subgraphs": self.subgraphs}}

    def prompt(self) -> str | None:
        generation = read_generation(self.data())
        return generation.prompt if generation else None


def test_the_positive_text_is_found_and_notes_are_not() -> None:
    flow = Workflow()
    flow.add("MarkdownNote", ["Read this long note before you start with this workflow"])
    flow.add("CLIPTextEncode", ["a text that is connected to nothing"])
    flow.sample(flow.add("FluxGuidance", [3.5], conditioning=flow.add("CLIPTextEncode", ["cat"])))
    generation = read_generation(flow.data())
    assert generation is not None
    assert (generation.prompt, generation.certain, generation.starts_from) == ("cat", True, ())
    assert generation.metadata == {
        "sampler_name": "euler", "steps": 20, "cfg": 6.5, "model": "sd.safetensors",
        "negative_prompt": "a much longer text of what is not wanted at all",
    }  # fmt: skip


def test_bypassed_nodes_hand_on_and_muted_ones_do_not() -> None:
    for mode, prompt in ((4, "a cat"), (2, None)):
        flow = Workflow()
        inner = flow.add("CLIPTextEncode", ["a cat"])
        flow.sample(flow.add("StyleConditioning", ["the style of something else"], mode=mode, conditioning=inner))
        assert flow.prompt() == prompt


def test_a_refiner_does_not_speak_for_the_first_sampler() -> None:
    flow = Workflow()
    first = flow.sample(flow.add("CLIPTextEncode", ["a bottle on a table"]))
    flow.nodes = [node for node in flow.nodes if node["type"] != "SaveImage"]
    flow.sample(flow.add("CLIPTextEncode", ["sharp details everywhere"]), latent_image=first)
    assert flow.prompt() == "a bottle on a table"


@pytest.mark.parametrize(("switch", "prompt"), [(True, "the long way"), (False, "a cat")])
def test_switches_are_followed(switch: bool, prompt: str) -> None:
    flow = Workflow()
    texts = {
        "on_false": flow.add("PrimitiveString", ["a cat"]),
        "on_true": flow.add("PrimitiveString", ["the long way"]),
    }
    chosen = flow.add("ComfySwitchNode", [switch], **texts)
    flow.sample(flow.add("CLIPTextEncode", ["unused default"], text=chosen))
    assert flow.prompt() == prompt


def test_language_models_unknown_nodes_and_loaded_pictures_are_told() -> None:
    flow = Workflow()
    flow.sample(flow.add("CLIPTextEncode", [""], text=flow.add("TextGenerate", ["Improve this prompt: a cat"])))
    generation = read_generation(flow.data())
    assert generation is not None
    assert generation.rewritten
    flow = Workflow()
    changed = flow.add("SomebodysWordShuffler", [], text=flow.add("PrimitiveString", ["a cat"]))
    flow.sample(flow.add("CLIPTextEncode", [""], text=changed))
    generation = read_generation(flow.data())
    assert generation is not None
    assert not generation.certain
    flow = Workflow()
    loaded = flow.add("VAEEncode", pixels=flow.add("LoadImage", ["dog.png"]))
    flow.sample(flow.add("CLIPTextEncode", ["a cat"]), latent_image=loaded)
    generation = read_generation(flow.data())
    assert generation is not None
    assert generation.starts_from == ("LoadImage", "VAEEncode")


def test_nodes_that_call_a_service() -> None:
    flow = Workflow()
    flow.add("SaveImage", ["x"], images=flow.add("GrokImageNode", ["grok-model", "a cat on a mat", "16:9"], image=None))
    assert flow.prompt() == "a cat on a mat"


def subgraph_flow(values: list[Any], properties: dict[str, Any], **inputs: int) -> Workflow:
    """A workflow whose sampler lies in a subgraph with one text input."""
    flow = Workflow()
    inner = Workflow()
    text = inner.add("CLIPTextEncode", ["the default inside"])
    inner.nodes[0]["inputs"] = [{"name": "text", "link": 99}]
    inner.sample(text)
    inner.nodes.pop()
    links = [
        {"id": n, "origin_id": a, "origin_slot": b, "target_id": c, "target_slot": d}
        for n, a, b, c, d, _ in inner.links
    ]
    links += [{"id": 99, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0}]
    links += [{"id": 98, "origin_id": len(inner.nodes), "origin_slot": 0, "target_id": -20, "target_slot": 0}]
    flow.subgraphs = [
        {"id": "sub", "inputNode": {"id": -10}, "nodes": inner.nodes, "links": links,
         "inputs": [{"name": "text", "type": "STRING", "linkIds": [99]}],
         "outputs": [{"name": "IMAGE", "linkIds": [98]}]}
    ]  # fmt: skip
    used = flow.add("sub", values, **inputs)
    flow.nodes[-1]["properties"] = properties
    flow.add("SaveImage", ["x"], images=used)
    return flow


def test_subgraph_defaults_values_and_links() -> None:
    assert subgraph_flow([], {}).prompt() == "the default inside"
    assert subgraph_flow(["set outside"], {}).prompt() == "set outside"
    assert subgraph_flow(["set outside"], {"proxyWidgets": [["-1", "text"]]}).prompt() == "set outside"
    assert subgraph_flow(["set outside"], {"proxyWidgets": [["1", "text"]]}).prompt() == "set outside"
    flow = subgraph_flow([], {})
    source = flow.add("PrimitiveStringMultiline", ["fed from outside"])
    flow.links.append([50, source, 0, 1, 0, "STRING"])
    flow.nodes[0]["inputs"] = [{"name": "text", "link": 50}]
    assert flow.prompt() == "fed from outside"


def test_subgraphs_that_multiply_are_refused() -> None:
    node = {"type": "", "inputs": [], "widgets_values": []}
    levels = [
        {"id": f"s{i}", "inputNode": {"id": -10}, "inputs": [], "outputs": [], "links": [],
         "nodes": [{**node, "id": n, "type": f"s{i + 1}"} for n in range(10)]}
        for i in range(12)
    ]  # fmt: skip
    data = {"nodes": [{**node, "id": 1, "type": "s0"}], "links": [], "definitions": {"subgraphs": levels}}
    with pytest.raises(ValueError, match="20000 nodes"):
        read_graph(data)


def template(folder: Path, name: str, flow: Workflow, *pictures: str) -> None:
    (folder / f"{name}.json").write_text(json.dumps(flow.data()))
    for picture in pictures or (f"{name}-1.webp",):
        Image.new("RGB", (4, 4)).save(folder / picture)


def simple(text: str) -> Workflow:
    flow = Workflow()
    flow.sample(flow.add("CLIPTextEncode", [text]))
    return flow


def test_a_folder_of_workflows_and_pictures(tmp_path: Path) -> None:
    template(tmp_path, "one", simple("a cat"))
    template(tmp_path, "two", simple("a dog"), "two.png")
    template(tmp_path, "pair", simple("a pair"), "pair-1.webp", "pair-2.webp")
    template(tmp_path, "silent", simple(""))
    template(tmp_path, "data", simple('{"description": "a cat"}'))
    template(tmp_path, "system", simple("You are an assistant. <Prompt Start> a fish"))
    (tmp_path / "broken.json").write_text('{"nodes": [5]}')
    Image.new("RGB", (4, 4)).save(tmp_path / "broken-1.webp")
    source = open_source(str(tmp_path))
    assert source.format == "comfyui-templates"
    items = list(source)
    assert items == list(source)
    found = {Path(item.picture.path).name: item.prompt for item in items if isinstance(item, Entry)}
    assert found == {"one-1.webp": "a cat", "two.png": "a dog", "system-1.webp": "a fish"}
    skipped = {Path(item.uri).name: item.reason for item in items if isinstance(item, Skipped)}
    assert skipped == {
        "pair-1.webp": "not text to image",
        "silent-1.webp": "no prompt",
        "data-1.webp": "no prompt",
        "broken-1.webp": "unreadable",
    }


def test_the_index_says_what_is_text_to_image(tmp_path: Path) -> None:
    about: dict[str, dict[str, Any]] = {
        "plain": {"tags": ["Text to Image", "API"], "models": ["Some Model"]},
        "edit": {"tags": ["Text to Image", "Image Edit"]},
        "files": {"tags": ["Text to Image"], "io": {"inputs": [{"file": "a.png"}]}},
        "compare": {"tags": ["Text to Image"], "thumbnailVariant": "compareSlider"},
        "video": {"tags": ["Text to Video"]},
    }
    for name in about:
        template(tmp_path, name, simple(f"prompt of {name}"))
    index = [{"templates": [{"name": name, "mediaType": "image", **values} for name, values in about.items()]}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    items = list(open_source(str(tmp_path)))
    assert [type(item).__name__ for item in items] == ["Skipped", "Skipped", "Skipped", "Entry"]
    assert {item.reason for item in items[:3]} == {"not text to image"}
    assert (items[3].prompt, items[3].metadata["model"]) == ("prompt of plain", "Some Model")


INSTALLED = importlib.util.find_spec("comfyui_workflow_templates_json") is not None
needs_packages = pytest.mark.skipif(
    not INSTALLED, reason="the ComfyUI template packages (extra: demo) are not installed"
)


@needs_packages
def test_the_installed_packages() -> None:
    source = open_source("comfyui-templates")
    items = list(source)
    assert items == list(source)
    entries = {item.metadata["template"]: item for item in items if isinstance(item, Entry)}
    assert len(entries) >= 40
    assert len({entry.prompt for entry in entries.values()}) == len(entries)
    for name, entry in entries.items():
        assert Path(entry.picture.path).name.startswith(f"{name}-1")
        assert len(entry.prompt.split()) >= 5, entry
        for word in ("You are", "system", "prompt engineer", "Reference Image", "Replace the", "http"):
            assert word not in entry.prompt, entry
    klein = entries["image_flux2_klein_text_to_image"]
    assert klein.prompt.startswith("A hedgehog wearing a tiny party hat")
    assert klein.metadata["steps"] == 20
    assert klein.metadata["license"] == "MIT"


@needs_packages
def test_known_templates_of_other_kinds_stay_out() -> None:
    names = {Path(item.picture.path).name for item in open_source("comfyui-templates") if isinstance(item, Entry)}
    for name in (
        "image_flux2",
        "image_qwen_image_union_control_lora",
        "flux_schnell",
        "image_krea2_turbo_t2i",
        "video_ltx2_t2v",
    ):
        assert f"{name}-1.webp" not in names


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pkgutil.iter_modules", lambda: iter(()))
    with pytest.raises(SourceError, match=r"pip install 'unprompt\[demo\]'"):
        open_source("comfyui-templates")
