"""ComfyUI's node graphs, flattened.

ComfyUI stores two graphs in a picture: ``prompt``, what was executed (``{id: {"class_type", "inputs"}}``), and
``workflow``, what stood on the screen (``nodes``, ``links``, and subgraphs under ``definitions``). Both become the same
flat `Graph` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MUTED, BYPASSED = 2, 4
"""ComfyUI's node modes: a muted node does nothing, a bypassed one hands its inputs on."""

MAX_NODES = 20_000
"""Subgraphs within subgraphs multiply, and a picture's graph is anybody's."""

_PASS = "(pass)"
"""The type of the nodes that stand for a subgraph's inputs and outputs."""

_WIDGET_TYPES = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")

# Widgets of a saved workflow have no names; these are the ones that metadata is read from.
_WIDGETS = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name"),
    "KSamplerAdvanced": ("", "noise_seed", "", "steps", "cfg", "sampler_name"),
    "SamplerCustom": ("", "noise_seed", "", "cfg"),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("", "steps"),
    "Flux2Scheduler": ("steps",),
    "SDTurboScheduler": ("steps",),
    "CFGGuider": ("cfg",),
    "RandomNoise": ("noise_seed",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "StringReplace": ("string", "find", "replace"),
    "ComfySwitchNode": ("switch",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl"),
    "CLIPTextEncodeLumina2": ("", "user_prompt"),
}


@dataclass(slots=True)
class Node:
    """One node of a flat graph.

    Attributes:
        kind: ComfyUI's class name.
        mode: 0 when active, else `MUTED` or `BYPASSED`.
        links: the id of the node that feeds an input, by input name.
        named: the widget values whose name is known.
        values: all widget values, in order.
    """

    kind: str
    mode: int = 0
    links: dict[str, str] = field(default_factory=dict)
    named: dict[str, Any] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)


Graph = dict[str, Node]


def read_graph(data: Any) -> Graph:
    """Flattens an executed prompt or a saved workflow; a subgraph's nodes get ids such as "57:27".

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is neither.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a ComfyUI graph is a JSON object, not {type(data).__name__}")
    if isinstance(data.get("nodes"), list):
        graph: Graph = {}
        definitions = {item["id"]: item for item in (data.get("definitions") or {}).get("subgraphs") or []}
        _add_workflow(graph, data, definitions, prefix="", depth=0)
        return graph
    nodes = data["prompt"] if isinstance(data.get("prompt"), Mapping) else data
    return {str(key): _executed_node(node, nodes) for key, node in nodes.items() if isinstance(node, Mapping)}


def _executed_node(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> Node:
    found = Node(str(node["class_type"]))
    for name, value in node.get("inputs", {}).items():
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in nodes:
            found.links[name] = str(value[0])
        else:
            found.named[name] = value
    found.values = list(found.named.values())
    return found


def _add_workflow(
    graph: Graph, data: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str, depth: int
) -> None:
    if depth > 16 or len(graph) > MAX_NODES:
        raise ValueError(f"subgraphs nested more than 16 deep, or over {MAX_NODES} nodes")
    instances = {node["id"]: node["type"] for node in data["nodes"] if node["type"] in definitions}
    sources = {}
    for link in data.get("links") or []:
        number, origin, slot = (
            (link["id"], link["origin_id"], link["origin_slot"]) if isinstance(link, dict) else link[:3]
        )
        if depth and origin == data["inputNode"]["id"]:
            sources[number] = f"{prefix}in{slot}"
        else:
            sources[number] = f"{prefix}{origin}:out{slot}" if origin in instances else f"{prefix}{origin}"
    for raw in data["nodes"]:
        links = {item["name"]: sources[item["link"]] for item in raw.get("inputs") or [] if item.get("link") in sources}
        values = raw.get("widgets_values") or []
        node = Node(str(raw["type"]), int(raw.get("mode") or 0), links)
        node.values = list(values.values()) if isinstance(values, dict) else list(values)
        names = _WIDGETS.get(node.kind, ())
        node.named = dict(values) if isinstance(values, dict) else dict(zip(names, node.values, strict=False))
        if raw["id"] in instances:
            _add_instance(graph, raw, node, definitions, f"{prefix}{raw['id']}:", depth)
        else:
            graph[f"{prefix}{raw['id']}"] = node
    for slot, output in enumerate(data.get("outputs") or [] if depth else []):
        feeding = [sources[number] for number in output.get("linkIds") or [] if number in sources]
        graph[f"{prefix}out{slot}"] = Node(_PASS, links={"": feeding[0]} if feeding else {})


def _add_instance(
    graph: Graph, raw: Mapping[str, Any], outer: Node, definitions: Mapping[str, Any], prefix: str, depth: int
) -> None:
    """Expands one use of a subgraph: its inputs and outputs become nodes that hand on, its own widgets override."""
    inner = definitions[raw["type"]]
    _add_workflow(graph, inner, definitions, prefix, depth + 1)
    inputs = inner.get("inputs") or []
    overrides = dict(zip(_widget_owners(raw, inputs), outer.values, strict=False))
    for slot, name in enumerate(item["name"] for item in inputs):
        feeding, value = outer.links.get(name), overrides.pop(("-1", name), None)
        node = Node(_PASS, links={"": feeding} if feeding else {}, values=[] if value is None else [value])
        graph[f"{prefix}in{slot}"] = node
    for (target, name), value in overrides.items():
        if f"{prefix}{target}" in graph and value is not None:
            graph[f"{prefix}{target}"].named[name] = value
    if outer.mode != 0:  # muting or bypassing a subgraph does so to all that is in it
        for key, node in graph.items():
            if key.startswith(prefix):
                node.mode = outer.mode


def _widget_owners(raw: Mapping[str, Any], inputs: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Whose widgets a subgraph's own values are: (node inside, widget name), "-1" standing for the subgraph's input.

    Older files list them under ``proxyWidgets``; newer ones hold a value for each input that is not a socket alone.
    """
    proxies = (raw.get("properties") or {}).get("proxyWidgets")
    if proxies:
        return [(str(item[0]), str(item[1])) for item in proxies]
    return [("-1", item["name"]) for item in inputs if item.get("type") in _WIDGET_TYPES]


def upstream(graph: Graph, start: str, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Node]]:
    """Walks from a node to all that feed it, nearest first, without muted ones and not through inputs in `skip`."""
    queue, seen = [start], {start}
    for key in queue:
        node = graph.get(key)
        if node is None or node.mode == MUTED:
            continue
        yield key, node
        for name, source in node.links.items():
            if name not in skip and source not in seen:
                seen.add(source)
                queue.append(source)
