"""The memory head of `starter`: what a picture shows and whose style it has are recognised, then said in text space.

Entities (artists, outfits, modifiers) are remembered as prototypes in a space where pictures of one entity lie together
whatever they show: linear discriminant analysis with the within-entity covariance shrunk, as speaker recognition does
it (Prince and Elder, "Probabilistic Linear Discriminant Analysis", 2007). The weighted text values of the likely groups
and entities make a first answer, which a few steps then bring to where its cosines with the entities' names agree with
how likely they are, then to where it says what is shown; for pictures unlike any remembered one, ImageNet classes make
the answer instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.preprocessing import Preprocessing
from unprompt.errors import EncoderError

MEMORY_FORMAT = "unprompt-starter-memory/3"
CLASSES = 1000
CLASS_MAP_SHARE = 0.2
NAMING_STEPS, NAMING_RATE, NAMING_MOMENTUM, NAMING_SHARPNESS = 10, 0.5, 0.7, 30.0
SHOWING_STEPS, SHOWING_RATE, SHOWING_SHARPNESS, SHOWING_POWER = 5, 0.1, 20.0, 4.0
FLOAT32 = ("input_mean", "input_scale", "gate_mean", "gate_scale")
"""Statistics of the inputs, whose range float16 does not hold."""


@dataclass(frozen=True)
class MemoryConfig:
    """What the head reads and how much it remembers.

    Attributes:
        inputs: names of raw features, concatenated in this order (see `StarterBackbone.features`).
        input_dim: D, the sum of their widths.
        groups: G, what a picture may show: subjects of each training set.
        families: M, sets of groups and of entities that occur together.
        entities: K, what is remembered.
        width: d, of the space of prototypes.
        dim: width of the output.
        pooled: width of the features that the backbone's classifier reads, which are among the inputs.
        texture: T, how many of the inputs, after the first `pooled`, the gate looks at; their means and deviations.
        usual: U < T, directions of them in which pictures of a group usually differ; 0 where T is.
        preprocessing: `Preprocessing.to_dict`; None stands for the backbone's own.

    """

    inputs: tuple[str, ...]
    input_dim: int
    groups: int
    families: int
    entities: int
    width: int
    dim: int = 384
    pooled: int = 1280
    texture: int = 0
    usual: int = 0
    preprocessing: Mapping[str, Any] | None = None

    @property
    def classes(self) -> bool:
        """Whether ImageNet logits are read besides the inputs: always."""
        return True

    def to_json(self) -> str:
        """One line of JSON, as it stands in the weights file."""
        return json.dumps({"format": MEMORY_FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MemoryConfig:
        """Reads what `to_json` wrote.

        Raises:
            EncoderError: it is of another format, or a key is missing or unknown.

        """
        try:
            values = json.loads(text)
            if values.pop("format", None) != MEMORY_FORMAT:
                raise EncoderError(f"the head's weights are not of format {MEMORY_FORMAT!r}: install unprompt again")
            values["inputs"] = tuple(values["inputs"])
            if values.get("preprocessing") is not None:
                Preprocessing.from_dict(values["preprocessing"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EncoderError(f"the head's configuration is not valid ({error}): install unprompt again") from None


class MemoryHead(nn.Module):
    """Raw features -> groups, entities -> their text values, or class names -> rows of norm 1."""

    input_mean: Tensor
    input_scale: Tensor
    group_weight: Tensor
    group_bias: Tensor
    group_family: Tensor
    group_values: Tensor
    group_shift: Tensor
    group_names: Tensor
    group_rivals: Tensor
    projection: Tensor
    prototypes: Tensor
    entity_bias: Tensor
    entity_family: Tensor
    entity_values: Tensor
    entity_names: Tensor
    naming_metric: Tensor
    sharpness: Tensor
    family_weight: Tensor
    class_values: Tensor
    class_temperature: Tensor
    class_map: Tensor
    pooled_mean: Tensor
    generic: Tensor
    gate_texture: Tensor
    gate_usual: Tensor
    gate_mean: Tensor
    gate_scale: Tensor
    gate_limit: Tensor
    gate_slope: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = c = config
        shapes = {
            "input_mean": (c.input_dim,),
            "input_scale": (c.input_dim,),
            "group_weight": (c.groups, c.input_dim),
            "group_bias": (c.groups,),
            "group_family": (c.groups, c.families),
            "group_values": (c.groups, c.dim),
            "group_shift": (c.groups, c.width),
            "group_names": (c.groups, c.dim),
            "group_rivals": (c.groups, c.groups),
            "projection": (c.width, c.input_dim),
            "prototypes": (c.entities, c.width),
            "entity_bias": (c.entities,),
            "entity_family": (c.entities, c.families),
            "entity_values": (c.entities, c.dim),
            "entity_names": (c.entities, c.dim),
            "naming_metric": (c.dim, c.dim),
            "sharpness": (),
            "family_weight": (),
            "class_values": (CLASSES, c.dim),
            "class_temperature": (),
            "class_map": (c.dim, c.pooled),
            "pooled_mean": (c.pooled,),
            "generic": (c.dim,),
            "gate_texture": (c.groups, c.texture),
            "gate_usual": (c.usual, c.texture),
            "gate_mean": (c.groups, 2),
            "gate_scale": (c.groups, 2),
            "gate_limit": (c.groups,),
            "gate_slope": (),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Maps raw features, each (N, width) float32, to (N, dim) float32 of norm 1."""
        x = self.standardise(features)  # (N, D)
        groups = self.groups(x)  # (N, G)
        scores = self.scores(x, groups)  # (N, K)
        likely = self.likely(scores, groups)  # (N, K)
        known = self.show(self.name(self.speak(likely, groups), likely), groups)  # (N, dim)
        trust = self.trust(x, groups, scores)  # (N, 1)
        return F.normalize(trust * known + (1 - trust) * self.imagine(features["logits"], features["pooled"]), dim=1)

    def standardise(self, features: Mapping[str, Tensor]) -> Tensor:
        """The concatenated inputs, covariances by their signed root, at mean 0 and scale 1: (N, D)."""
        rooted = [signed_root(features[n]) if n.endswith(".cov") else features[n] for n in self.config.inputs]
        return (torch.cat(rooted, dim=1) - self.input_mean) * self.input_scale

    def groups(self, x: Tensor) -> Tensor:
        """How likely the picture shows what each group shows: (N, D) -> (N, G) probabilities."""
        return F.linear(x, self.group_weight, self.group_bias).softmax(dim=1)

    def place(self, x: Tensor, groups: Tensor) -> Tensor:
        """The picture in the space of prototypes, what it shows subtracted: (N, d) rows of norm 1."""
        return F.normalize(F.linear(x, self.projection) - groups @ self.group_shift, dim=1)

    def scores(self, x: Tensor, groups: Tensor) -> Tensor:
        """The cosine with every prototype: (N, K)."""
        return self.place(x, groups) @ self.prototypes.T

    def likely(self, scores: Tensor, groups: Tensor) -> Tensor:
        """How likely the picture is of each entity: (N, K), (N, G) -> (N, K) probabilities."""
        family = (groups @ self.group_family) @ self.entity_family.T  # (N, K)
        logits = scores * self.sharpness + self.entity_bias + self.family_weight * (family + 1e-4).log()
        return logits.softmax(dim=1)

    def speak(self, likely: Tensor, groups: Tensor) -> Tensor:
        """The text value of the likely groups and entities: (N, K), (N, G) -> (N, dim) rows of norm 1."""
        return F.normalize(groups @ self.group_values + likely @ self.entity_values, dim=1)

    def name(self, query: Tensor, likely: Tensor) -> Tensor:
        """Turns the query until names are as near to it as their entities are likely: (N, dim), (N, K) -> (N, dim).

        A mixture of K > dim values also lies near names that none of them bears. This descends the cross-entropy
        between `likely` and the softmax of the query's products with all names, by Nesterov's method in the metric of
        the names' inverse covariance; what tells groups apart is held fast. Few steps: the start is worth keeping.
        """
        velocity = torch.zeros_like(query)
        for _ in range(NAMING_STEPS):
            ahead = query + NAMING_MOMENTUM * velocity
            excess = (NAMING_SHARPNESS * (ahead @ self.entity_names.T)).softmax(dim=1) - likely  # (N, K)
            velocity = NAMING_MOMENTUM * velocity - NAMING_RATE * (excess @ self.entity_names @ self.naming_metric)
            query = query + velocity
        return F.normalize(query, dim=1)

    def show(self, query: Tensor, groups: Tensor) -> Tensor:
        """Turns the query until the names of what is shown agree with the groups: (N, dim), (N, G) -> (N, dim).

        Values and artists' names leave the subject less sure than the groups know it to be: many names lie nearer to
        "portrait" than to "dog". This descends the same cross-entropy as `name`, among the groups of the likely set
        alone and towards their sharpened probabilities, as the discriminant's own are too timid.
        """
        wanted = (SHOWING_POWER * groups.clamp(min=1e-12).log()).softmax(dim=1)  # (N, G)
        rivals = (groups @ self.group_rivals).clamp(min=1e-12).log()  # (N, G), 0 for groups of the likely set
        for _ in range(SHOWING_STEPS):
            said = (SHOWING_SHARPNESS * (query @ self.group_names.T) + rivals).softmax(dim=1)
            query = query - SHOWING_RATE * ((said - wanted) @ self.group_names)
        return F.normalize(query, dim=1)

    def strangeness(self, x: Tensor, groups: Tensor, scores: Tensor) -> Tensor:
        """How unlike its groups a picture is, (N, 2): logarithm of the unusual part of its texture, far prototypes.

        The unusual part is what the usual directions of difference leave of the distance from the groups' means: the
        residual that tells novel pictures best (Wang et al., "ViM", 2022), which prototypes do not see.
        """
        c = self.config
        texture = x[:, c.pooled : c.pooled + c.texture] - groups @ self.gate_texture  # (N, T)
        rest = texture.square().sum(dim=1) - (texture @ self.gate_usual.T).square().sum(dim=1)  # (N,)
        unusual = (rest / max(c.texture - c.usual, 1)).clamp(min=1e-6).log()
        return torch.stack([unusual, -scores.amax(dim=1)], dim=1)

    def trust(self, x: Tensor, groups: Tensor, scores: Tensor) -> Tensor:
        """How far the memory is believed, (N, 1): less, the stranger the picture is for the groups it may be of."""
        strange = (self.strangeness(x, groups, scores) - groups @ self.gate_mean) * (groups @ self.gate_scale)  # (N, 2)
        return ((groups @ self.gate_limit - strange.sum(dim=1)) * self.gate_slope).sigmoid()[:, None]

    def imagine(self, logits: Tensor, pooled: Tensor) -> Tensor:
        """What ImageNet classes say, about a generic prompt: (N, 1000), (N, 1280) -> (N, dim) rows of norm 1.

        The likely classes speak, and so does the direction of the pooled features, through a map from the classifier's
        weight rows to the classes' values: it also tells classes apart that the picture merely resembles.
        """
        likely = (logits / self.class_temperature).softmax(dim=1) @ self.class_values  # (N, dim)
        direction = F.normalize(pooled - self.pooled_mean, dim=1)
        alike = F.normalize(direction @ self.class_map.T, dim=1)  # (N, dim)
        return F.normalize(likely + CLASS_MAP_SHARE * alike + self.generic, dim=1)


def signed_root(x: Tensor) -> Tensor:
    """sign(x) sqrt(|x|), which tames the tails of covariances (Perronnin et al., 2010)."""
    return x.sign() * x.abs().sqrt()
