"""What an OFA model is built from: the keys of the official ``config.json`` that count here, and the five sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from unprompt.captioners.interface import CaptionerError

RESNET_BLOCKS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
"""Bottlenecks of the trunk's three stages: OFA cuts the fourth stage off, and has bottlenecks even in 18 and 34."""

ACTIVATIONS = ("gelu", "relu")

_FIXED = {"use_image_feature": True, "use_ofasys": False, "exclude_mlp": True, "temperature_init_value": None}
"""Keys of the official configuration with the one value that is a captioner of this layout."""


@dataclass(frozen=True, slots=True)
class OfaConfig:
    """The architecture, under the official names and with the official defaults.

    Attributes:
        d_model: D, the width.
        normformer: whether attention and the feed-forward hidden layer are normalised once more inside their branch.
        encoder_normalize_before: whether a branch normalises its input, or the sum after it; likewise the decoder's.
        use_gamma_feature: whether every branch is scaled, channel by channel, before it is added.
        attn_scale_factor: queries are divided by the square root of this times the width of a head, because
            attention is the sum of a content term and a position term.
        token_bucket_size: half the number of relative distances between tokens that are told apart.
        image_bucket_size: the longer side of the largest grid of picture tokens that positions exist for.
        share_attn_bias: whether all layers share one table of relative positions.
        entangle_position_embedding: whether absolute positions are also added to the embeddings.
        disable_entangle: whether the decoder does not do so.
        interpolate_position: whether a grid larger than that of ``orig_patch_image_size`` stretches its positions.
        code_image_size: pixels of the pictures that the decoder could draw; it has parameters for that, unused here.

    """

    vocab_size: int = 59457
    d_model: int = 512
    encoder_layers: int = 4
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 4
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    max_position_embeddings: int = 1024
    resnet_type: str = "resnet101"
    activation_function: str = "gelu"
    normformer: bool = True
    encoder_normalize_before: bool = True
    decoder_normalize_before: bool = True
    use_gamma_feature: bool = False
    scale_embedding: bool = False
    layernorm_embedding: bool = True
    patch_layernorm_embedding: bool = True
    code_layernorm_embedding: bool = True
    add_type_embedding: bool = True
    share_decoder_input_output_embed: bool = True
    attn_scale_factor: float = 2.0
    token_bucket_size: int = 256
    image_bucket_size: int = 42
    share_attn_bias: bool = False
    entangle_position_embedding: bool = False
    disable_entangle: bool = False
    interpolate_position: bool = False
    orig_patch_image_size: int = 224
    code_image_size: int = 128
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        """Rejects what no model can be built from.

        Raises:
            CaptionerError: a value is out of range.

        """
        for name, allowed in (("resnet_type", tuple(RESNET_BLOCKS)), ("activation_function", ACTIVATIONS)):
            if getattr(self, name) not in allowed:
                raise CaptionerError(f"OFA's {name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ("int", "float") and not field.name.endswith("_id") and value <= 0:
                raise CaptionerError(f"OFA's {field.name} is {value}: give more than 0")
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise CaptionerError(
                    f"OFA's d_model {self.d_model} does not divide into {heads} heads: correct config.json"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OfaConfig:
        """Reads an official ``config.json``; keys that do not change what the model computes are passed over.

        Raises:
            CaptionerError: it is no OFA configuration, or one of a variant that is not supported.

        """
        if values.get("model_type") != "ofa":
            raise CaptionerError(
                f"config.json is of a {values.get('model_type')!r} model: give a folder with an OFA model"
            )
        for name, value in _FIXED.items():
            if values.get(name, value) != value:
                raise CaptionerError(f"OFA with {name}={values[name]!r} is not supported: {name} must be {value!r}")
        known = {field.name: str(field.type) for field in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        types = {"int": int, "float": (int, float), "bool": bool, "str": str}
        for name, value in given.items():
            if not isinstance(value, types[known[name]]):  # type: ignore[arg-type]
                raise CaptionerError(f"OFA's {name} is {value!r}: config.json needs {known[name]} there")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """An official ``config.json``: `from_dict` gives this configuration back."""
        return {"model_type": "ofa", **asdict(self)}


def _size(width: int, heads: int, layers: tuple[int, int], resnet: str) -> OfaConfig:
    encoder, decoder = layers
    return OfaConfig(
        d_model=width,
        encoder_layers=encoder,
        encoder_ffn_dim=4 * width,
        encoder_attention_heads=heads,
        decoder_layers=decoder,
        decoder_ffn_dim=4 * width,
        decoder_attention_heads=heads,
        resnet_type=resnet,
    )


SIZES = {
    "tiny": _size(256, 4, (4, 4), "resnet50"),
    "medium": _size(512, 8, (4, 4), "resnet101"),
    "base": _size(768, 12, (6, 6), "resnet101"),
    "large": _size(1024, 16, (12, 12), "resnet152"),
    "huge": _size(1280, 16, (24, 12), "resnet152"),
}
"""The published sizes: 33, 93, 180, 470 and 930 million parameters."""

_PICTURE_SIZES = {256: 256, 512: 256, 768: 384}
DEFAULT_PICTURE_SIZE = 480
"""Of the large and huge models, and of every model that was fine-tuned for captioning."""


def picture_size(config: OfaConfig) -> int:
    """The side, in pixels, of the pictures that the pretrained model of this width was trained on."""
    return _PICTURE_SIZES.get(config.d_model, DEFAULT_PICTURE_SIZE)
