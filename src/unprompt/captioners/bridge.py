"""`bridge`: learnt queries read the picture, and what they read stands before a language model's first token.

The queries are those of the Q-Former (Li et al., "BLIP-2", 2023); a mapped prefix before a language model is Mokady
et al., "ClipCap" (2021). The language model is frozen but for its last layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from unprompt.captioners import language_model as lm
from unprompt.captioners.attention import CrossBlock, MemoryProjection
from unprompt.captioners.interface import CaptionConfig, CaptionerError, CaptionModel, Memory, State


@dataclass(frozen=True, slots=True)
class BridgeConfig(CaptionConfig):
    """The bridge's sizes, and the language model.

    Attributes:
        language_model: its configuration, see `language_model.build`; its vocabulary is ``vocabulary``.
        unfrozen_layers: how many of its last layers are trained, with its final norm; -1 for all of it.
        queries: Q, the tokens that the picture becomes.
        dim: width of the bridge.
        heads: of its attentions; divides ``dim``.
        layers: of the bridge.
        feedforward: width inside its feed-forward layers.
        neighbours_as: "memory" lets the queries read the neighbours beside the picture; "prefix" gives each neighbour
            a token of its own in front of the language model.
    """

    language_model: Mapping[str, Any] = field(default_factory=lambda: {"model_type": "gpt2"})
    unfrozen_layers: int = 2
    queries: int = 10
    dim: int = 512
    heads: int = 8
    layers: int = 4
    feedforward: int = 2048
    neighbours_as: Literal["memory", "prefix"] = "memory"


class BridgeCaptioner(CaptionModel):
    """See the module. Built alone its language model is random: `with_language_model` takes a trained one."""

    name = "bridge"
    config_class = BridgeConfig
    config: BridgeConfig

    def __init__(self, config: BridgeConfig, language_model: Any = None) -> None:
        """Builds the bridge.

        Args:
            config: all sizes.
            language_model: taken as it is, so that no random one is made first; None builds one.

        Raises:
            CaptionerError: the configuration does not fit together.
        """
        super().__init__(config)
        if config.neighbours_as not in ("memory", "prefix"):
            raise CaptionerError(f"unknown neighbours_as {config.neighbours_as!r}: use memory or prefix")
        self.language_model = lm.build(config.language_model) if language_model is None else language_model
        vocabulary, width = self.language_model.get_input_embeddings().weight.shape
        if vocabulary != config.vocabulary:
            raise CaptionerError(f"vocabulary {config.vocabulary}: the language model has {vocabulary}, give that")
        self.unfrozen = lm.freeze(self.language_model, config.unfrozen_layers)
        as_prefix = bool(config.neighbour_dim) and config.neighbours_as == "prefix"
        self.memory = MemoryProjection(replace(config, neighbour_dim=0) if as_prefix else config, config.dim)
        self.neighbour_prefix = NeighbourPrefix(config.neighbour_dim, width) if as_prefix else None
        self.queries = nn.Parameter(torch.randn(config.queries, config.dim) * 0.02)
        shape = (config.dim, config.heads, config.feedforward, config.dropout)
        self.blocks = nn.ModuleList(CrossBlock(*shape) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, width)
        # The language model knows tokens of this size; far larger ones would drown its positions.
        size = float(self.language_model.get_input_embeddings().weight.detach().std())
        nn.init.normal_(self.out.weight, std=size / config.dim**0.5)
        self.train(self.training)

    @classmethod
    def with_language_model(cls, source: str, **values: Any) -> Self:
        """A new bridge before a trained language model.

        Args:
            source: a folder or a hub repository, see `language_model.load`.
            values: the rest of the configuration; ``vocabulary`` and ``language_model`` come from the model.

        Raises:
            CaptionerError: the model cannot be loaded, or a value is unknown or does not fit.
            EncoderError: the hub is needed and cannot be reached.
        """
        known = {each.name for each in fields(BridgeConfig)} - {"vocabulary", "language_model"}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise CaptionerError(f"unknown bridge setting {unknown[0]!r}: use one of {', '.join(sorted(known))}")
        model = lm.load(source)
        values |= {"vocabulary": len(model.get_input_embeddings().weight), "language_model": lm.description(model)}
        return cls(BridgeConfig(**values), model)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what is frozen keeps out of training: no dropout there either."""
        super().train(mode)
        if not isinstance(getattr(self, "unfrozen", None), list):
            return self
        self.language_model.eval()
        for module in self.unfrozen:
            module.train(mode)
        return self

    def forward(self, memory: Memory, tokens: Tensor) -> Tensor:
        """See `CaptionModel.forward`.

        Raises:
            CaptionerError: prefix and captions are longer than the language model reads.
        """
        words = self.language_model.get_input_embeddings()(tokens)  # (B, T, D)
        prefix = self.prefix(memory, tokens.shape[1])
        output = self.language_model(
            inputs_embeds=torch.cat([prefix, words], dim=1), use_cache=False, logits_to_keep=tokens.shape[1]
        )
        logits: Tensor = output.logits  # (B, T, V)
        return logits

    def prefix(self, memory: Memory, words: int = 0) -> Tensor:
        """What stands for the pictures before the language model: (B, Q, D), or (B, Q + K, D) with neighbours there.

        Args:
            memory: B pictures.
            words: how many tokens are to follow, checked against what the language model can read.
        """
        attended, mask = self.memory(memory)
        x = self.queries.expand(len(attended), -1, -1)  # (B, Q, d)
        for block in cast("list[CrossBlock]", list(self.blocks)):
            x, _ = block(x, block.cross.project(attended), mask)
        prefix: Tensor = self.out(self.norm(x))  # (B, Q, D)
        if self.neighbour_prefix is not None and memory.neighbours is not None:
            prefix = torch.cat([self.neighbour_prefix(memory), prefix], dim=1)
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        if limit is not None and prefix.shape[1] + words > limit:
            raise CaptionerError(
                f"{prefix.shape[1]} prefix and {words} caption tokens exceed the language model's {limit}: "
                "cut the captions, or use fewer queries or neighbours"
            )
        return prefix

    def start(self, memory: Memory) -> State:
        """See `CaptionModel.start`."""
        prefix = self.prefix(memory, self.config.max_tokens)
        _, cache = lm.read(self.language_model, prefix)
        return State({}, cache, torch.arange(len(prefix), device=prefix.device))

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """See `Decodable.step`."""
        logits, cache = lm.step(self.language_model, state.moving, tokens)
        return logits, state._replace(moving=cache)


class NeighbourPrefix(nn.Module):
    """Each neighbour's embedding as a token of the language model; a learnt one stands where a neighbour is missing."""

    def __init__(self, neighbour_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(neighbour_dim, dim)
        self.missing = nn.Parameter(torch.zeros(dim))

    def forward(self, memory: Memory) -> Tensor:
        """(B, K, E) -> (B, K, D)."""
        assert memory.neighbours is not None
        told: Tensor = self.project(memory.neighbours.to(self.project.weight.dtype))
        if memory.neighbour_mask is None:
            return told
        return torch.where(memory.neighbour_mask[..., None], told, self.missing)
