"""Traces a ComfyUI graph from its output back to the text that conditioned it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from unprompt.pictures.comfyui.graph import BYPASSED, MUTED, Graph, Node, read_graph, upstream

_MEDIA_INPUTS = ("LoadImage", "LoadVideo", "LoadAudio", "LoadLatent", "VAEEncode", "VHS_Load", "ImageFromURL")
_SAVES = ("SaveImage", "Image Save", "ImageSaver", "SaveAnimated", "PreviewImage")

# Inputs through which words never come; everything else on a conditioning node is followed.
_WORDLESS = frozenset(
    {"clip", "model", "vae", "image", "images", "control_net", "negative", "latent", "latent_image", "samples",
     "mask", "pixels", "clip_vision_output", "clip_vision", "style_model", "width", "height", "seed", "noise_seed",
     "steps", "cfg"}
)  # fmt: skip
_TEXT_INPUTS = ("text", "prompt", "user_prompt", "positive", "t5xxl", "text_g", "clip_l", "text_l", "string", "value")
# Nodes that hand words on as they are, or turn them into conditioning.
_TEXT_KINDS = ("Encode", "Primitive", "Text", "String", "Reroute", "PreviewAny", "ControlNet", "(pass)")
_SCALAR_KINDS = ("(pass)", "Primitive", "Reroute", "Seed", "Int", "Float")
_WRITERS = ("TextGenerate", "GeminiNode", "OpenAIChat", "LLM", "Ollama", "Florence", "Caption", "Interrogat", "Qwen3VL",
            "Enhance", "OpenRouterLLM", "ClaudeNode", "GrokText")  # fmt: skip
MAX_TEXT = 100_000
"""Characters; string nodes can double a text at each step, and a picture's graph is anybody's."""

_SAMPLER_KEYS = {
    "sampler_name": ("sampler_name",),
    "steps": ("steps",),
    "cfg": ("cfg",),
    "seed": ("seed", "noise_seed"),
    "model": ("ckpt_name", "unet_name"),
}


@dataclass(frozen=True, slots=True)
class Words:
    """Texts met on the way to a node, without repeats, and what lay on the way; see `Generation`."""

    texts: tuple[str, ...] = ()
    certain: bool = True
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """The prompt of the picture that a graph makes.

    Attributes:
        prompt: the positive prompt, stripped, never empty.
        metadata: those of sampler_name, steps, cfg, seed, model, negative_prompt that are known.
        certain: whether every node on the way to the text is known to hand it on as it is.
        rewritten: whether a language model on the way writes the words that the sampler sees, from those found here.
        starts_from: types of the nodes that load a picture, a video or a sound and lead to the result.
    """

    prompt: str
    metadata: Mapping[str, Any]
    certain: bool
    rewritten: bool
    starts_from: tuple[str, ...]


def read_generation(data: Any) -> Generation | None:
    """Finds the prompt of the picture that a ComfyUI graph makes, or None when no text leads to its output.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no ComfyUI graph.
    """
    graph = read_graph(data)
    executed = not isinstance(data.get("nodes"), list)
    found = trace(graph)
    if found is None:
        return None
    # A saved workflow shows the seed of the next run, not of this one.
    metadata = {key: value for key, value in found.metadata.items() if executed or key != "seed"}
    return replace(found, metadata=metadata)


def trace(graph: Graph) -> Generation | None:
    """Finds the prompt behind the first output that has one; outputs are tried in the order of the file."""
    for key, node in graph.items():
        if node.mode not in (MUTED, BYPASSED) and any(kind in node.kind for kind in _SAVES):
            found = _trace_output(graph, key)
            if found is not None:
                return found
    return _trace_samplers(graph, list(graph))  # saved by a node of an unknown type


def _trace_output(graph: Graph, output: str) -> Generation | None:
    ancestors = [key for key, _ in upstream(graph, output, frozenset({"negative"}))]
    found = _trace_samplers(graph, ancestors)
    if found is not None:
        return found
    reader = TextReader(graph)
    for key in ancestors[1:]:  # no sampler: a node that calls a service has the prompt among its own widgets
        if graph[key].mode == BYPASSED:
            continue
        words = reader.own_text(graph[key])
        if words.texts:
            return _generation(graph, key, words, {})
    return None


def _trace_samplers(graph: Graph, keys: list[str]) -> Generation | None:
    """Takes the sampler farthest from the output: a refiner or upscaler behind it repeats or details its prompt."""
    reader = TextReader(graph)
    for key in reversed(keys):
        name = _conditioning(graph[key])
        if name is not None:
            words = reader.words(graph[key].links[name])
            if words.texts:
                return _generation(graph, key, words, _settings(graph, key, reader))
    return None


def _conditioning(node: Node) -> str | None:
    """The input of a sampler, or of the guider before one, that takes the positive conditioning."""
    if node.mode in (MUTED, BYPASSED):
        return None
    if "positive" in node.links and ("model" in node.links or "latent_image" in node.links):
        return "positive"
    return "conditioning" if "conditioning" in node.links and "model" in node.links else None


class TextReader:
    """Reads the words that reach a node. Each node is read once, however many ways lead to it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Words] = {}

    def words(self, key: str) -> Words:
        """The texts that reach a node's output, in the order of its inputs."""
        if key not in self._known:
            self._known[key] = Words()  # what a node on a circle finds of itself
            node = self._graph.get(key)
            if node is not None and node.mode != MUTED and "ZeroOut" not in node.kind:
                self._known[key] = self._read(node)
        return self._known[key]

    def _read(self, node: Node) -> Words:
        if node.mode != BYPASSED:
            if node.kind == "ComfySwitchNode":
                return self.words(node.links.get("on_true" if _value(self._graph, node, "switch") else "on_false", ""))
            own = self.own_text(node)
            if own.texts:
                return own
        return _merge(self.words(source) for name, source in node.links.items() if name.lower() not in _WORDLESS)

    def own_text(self, node: Node) -> Words:
        """The text that a node itself writes: what its text inputs are fed, else its text widget."""
        rewritten = any(kind in node.kind for kind in _WRITERS)
        known = any(kind in node.kind for kind in _TEXT_KINDS)
        if node.kind in ("StringConcatenate", "StringReplace"):
            return self._composed(node)
        if not {"conditioning", "model"} & node.links.keys():
            fed = _merge(self.words(node.links[name]) for name in _TEXT_INPUTS if name in node.links)
            if fed.texts:
                return Words((max(fed.texts, key=len),), known and fed.certain, rewritten or fed.rewritten)
        text = _widget_text(node)
        if text is None or {"conditioning", "conditioning_1", "positive"} & node.links.keys():
            return Words()
        return Words((text,), known or not node.links, rewritten)

    def _composed(self, node: Node) -> Words:
        """ComfyUI's own two string nodes, computed as it computes them."""
        values: dict[str, str] = {}
        certain, rewritten = True, False
        for name in ("string", "find", "replace", "string_a", "string_b", "delimiter"):
            value = node.named.get(name)
            values[name] = value if isinstance(value, str) else ""
            if name in node.links:
                found = self.words(node.links[name])
                values[name] = found.texts[0] if found.texts else values[name]
                certain, rewritten = certain and found.certain, rewritten or found.rewritten
        if node.kind == "StringConcatenate":
            text = values["delimiter"].join((values["string_a"], values["string_b"]))
        else:
            text = values["string"]
            pieces = text.split(values["find"]) if values["find"] else [text]
            if len(text) + len(values["replace"]) * len(pieces) <= MAX_TEXT:
                text = values["replace"].join(pieces)
        text = text.strip()[:MAX_TEXT]
        return Words((text,) if text else (), certain, rewritten)


def _merge(found: Iterable[Words]) -> Words:
    words = list(found)
    texts = dict.fromkeys(text for item in words for text in item.texts)
    return Words(tuple(texts), all(item.certain for item in words), any(item.rewritten for item in words))


def _widget_text(node: Node) -> str | None:
    """The widget that holds a prompt: by name where names are known, else the first of three words or more."""
    named = [value.strip() for name in _TEXT_INPUTS if isinstance(value := node.named.get(name), str)]
    if any(named):
        return max(named, key=len)
    enough = 1 if node.kind == "CLIPTextEncode" or node.kind.startswith(("Primitive", "(pass)")) else 3
    texts = (value.strip() for value in node.values if isinstance(value, str))
    return next((text for text in texts if len(text.split()) >= enough), None)


def _settings(graph: Graph, sampler: str, reader: TextReader) -> dict[str, Any]:
    """Sampler settings, each from the nearest node that has it."""
    found: dict[str, Any] = {}
    wordless = frozenset({"positive", "negative", "conditioning", "latent_image"})
    family = list(upstream(graph, sampler, wordless))
    # A guider has only part of them: the rest hangs on the sampler that it feeds.
    for key, node in graph.items():
        if node.links.get("guider") == sampler:
            family += upstream(graph, key, wordless | {"guider"})
    for name, keys in _SAMPLER_KEYS.items():
        for _, node in family:
            values = [value for key in keys if (value := _value(graph, node, key)) not in (None, "")]
            if values:
                found[name] = values[0]
                break
    negative = reader.words(graph[sampler].links.get("negative", "")).texts
    return found | {"negative_prompt": ", ".join(negative)} if negative else found


def _value(graph: Graph, node: Node, key: str, depth: int = 0) -> Any:
    """A widget's value; one that is fed by a link comes from the primitive node or subgraph input at its other end."""
    if key in node.links:
        source = graph.get(node.links[key])
        if source is None or depth > 16 or not any(kind in source.kind for kind in _SCALAR_KINDS):
            return None  # computed: not known without running the graph
        value = _value(graph, source, next(iter(source.links), "value"), depth + 1)
        if value is None and source.values:
            value = source.values[0]
        if value is not None:
            return value
    value = node.named.get(key)
    return value if isinstance(value, str | int | float) else None


def _generation(graph: Graph, key: str, words: Words, metadata: Mapping[str, Any]) -> Generation:
    loaders = {
        node.kind
        for _, node in upstream(graph, key)
        if node.mode != BYPASSED and any(kind in node.kind for kind in _MEDIA_INPUTS)
    }
    return Generation(", ".join(words.texts), metadata, words.certain, words.rewritten, tuple(sorted(loaders)))
