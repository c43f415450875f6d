"""Backbones whose last feature map is the grid of tokens that captioners read: 7x7 at 224 pixels.

Names are ``efficientnet-lite2``, whose weights a package brings, and ``resnet50:FILE_OR_REPOSITORY``: a state dict in
torchvision's layout, which timm shares (``.safetensors``, or ``.pth`` read as tensors only), or a hub repository such
as ``timm/resnet50.tv_in1k``, which holds torchvision's own weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unprompt.captioners.interface import CaptionerError
from unprompt.encoders import starter_backbone
from unprompt.encoders.efficientnet_lite import HEAD_CHANNELS, EfficientNetLite, load_efficientnet_lite
from unprompt.encoders.fingerprint import fingerprint
from unprompt.encoders.hub import obtain
from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.starter_backbone import GPU_MICRO_BATCH, MICRO_BATCH
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.encoders.weights_check import check_sha256
from unprompt.types import Pixels

SIDE = 224
"""Input in pixels."""
TOKENS = 49

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@runtime_checkable
class GridBackbone(Protocol):
    """Turns pictures into tokens. It is frozen: the same picture always has the same tokens."""

    name: str
    dim: int
    """C, the width of a token."""
    tokens: int
    """M, how many there are: 49."""
    fingerprint: str
    """64 hexadecimal digits: a sha256 over the weights and the preprocessing."""
    preprocess: Preprocessing

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """(N, 224, 224, 3) uint8 RGB, as ``preprocess`` makes it -> (N, 49, C) float32, row by row of the picture."""
        ...

    def grids(self, pixels: Pixels) -> Tensor:
        """What `encode` gives, as a tensor on the backbone's device."""
        ...


class FeatureMapBackbone:
    """A `GridBackbone` around a function from pictures to a feature map."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        feature_map: Callable[[Tensor], Tensor],
        dim: int,
        preprocess: Preprocessing,
    ) -> None:
        """Wraps a network.

        Args:
            name: what it is loaded by.
            network: whose weights make the fingerprint; it is moved nowhere and must be in inference mode.
            feature_map: (N, 3, H, W) float32 RGB in [0, 255] -> (N, C, H / 32, W / 32), of this network.
            dim: C.
            preprocess: from a picture to its input.
        """
        self.name, self.dim, self.tokens, self.preprocess = name, dim, TOKENS, preprocess
        self.network, self._feature_map = network, feature_map
        self.fingerprint = fingerprint(network.state_dict(), preprocess.to_dict(), "", grid=name.partition(":")[0])

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        """See `GridBackbone.encode`."""
        tokens: NDArray[np.float32] = self.grids(pixels).cpu().numpy()
        return tokens

    def grids(self, pixels: Pixels) -> Tensor:
        """See `GridBackbone.grids`.

        Raises:
            CaptionerError: the pixels are not uint8 of the preprocessing's size.
        """
        expected = (*self.preprocess.size, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            raise CaptionerError(
                f"pixels are {pixels.dtype} {pixels.shape}, {self.name} reads uint8 {('N', *expected)}: preprocess them"
            )
        device = next(self.network.parameters()).device
        size = MICRO_BATCH if device.type == "cpu" else GPU_MICRO_BATCH
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        # On a CPU each core has its own small batch, see `unprompt.encoders.parallel`.
        done = map_side_by_side(self._grid, batches) if device.type == "cpu" else [self._grid(b) for b in batches]
        return torch.cat(done) if done else torch.empty(0, self.tokens, self.dim, device=device)

    @torch.no_grad()
    def _grid(self, pixels: Pixels) -> Tensor:
        # An (N, H, W, 3) array seen as (N, 3, H, W) already lies channels-last.
        device = next(self.network.parameters()).device
        writable = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        x = writable.to(device).permute(0, 3, 1, 2).float()
        return self._feature_map(x).flatten(2).transpose(1, 2).contiguous()


def load_grid(name: str = "efficientnet-lite2", device: str = "cpu") -> FeatureMapBackbone:
    """Loads a backbone by its name, see the module.

    Args:
        name: "efficientnet-lite2", or "resnet50:FILE_OR_REPOSITORY".
        device: where it computes.

    Raises:
        CaptionerError: the name is unknown, or the weights are missing or do not fit.
        EncoderError: a package or the hub is needed and not there.
    """
    prefix, _, rest = name.partition(":")
    if name == "efficientnet-lite2":
        path = starter_backbone.weights_path()
        check_sha256(path, starter_backbone.SHA256, starter_backbone.PACKAGE)
        return efficientnet_grid(load_efficientnet_lite(path).to(device))
    if prefix == "resnet50" and rest:
        network = _torchvision_resnet50()
        _load_resnet50(network, _resnet50_file(rest))
        return resnet50_grid(network.to(device), name)
    raise CaptionerError(f"unknown backbone {name!r}: use efficientnet-lite2, or resnet50:FILE_OR_REPOSITORY")


def efficientnet_grid(network: EfficientNetLite) -> FeatureMapBackbone:
    """EfficientNet-Lite2 as a backbone of 1280-wide tokens."""

    def feature_map(x: Tensor) -> Tensor:
        return deque(network.stages(x), maxlen=1).pop()

    own = starter_backbone.PREPROCESSING
    preprocess = Preprocessing((SIDE, SIDE), mean=own.mean, std=own.std)
    return FeatureMapBackbone("efficientnet-lite2", network.eval(), feature_map, HEAD_CHANNELS, preprocess)


def resnet50_grid(network: nn.Module, name: str = "resnet50") -> FeatureMapBackbone:
    """A ResNet-50 of torchvision's or timm's as a backbone of 2048-wide tokens."""
    layers: Any = network.eval().requires_grad_(False)
    device = next(network.parameters()).device
    mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None] * 255
    std = torch.tensor(IMAGENET_STD, device=device)[:, None, None] * 255
    activation = layers.relu if hasattr(layers, "relu") else layers.act1  # torchvision's and timm's names

    def feature_map(x: Tensor) -> Tensor:
        x = layers.maxpool(activation(layers.bn1(layers.conv1((x - mean) / std))))  # (N, 64, H/4, W/4)
        deepest: Tensor = layers.layer4(layers.layer3(layers.layer2(layers.layer1(x))))
        return deepest

    preprocess = Preprocessing((SIDE, SIDE), interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return FeatureMapBackbone(name, network, feature_map, 2048, preprocess)


def _torchvision_resnet50() -> nn.Module:
    ensure_torchvision()
    try:
        from torchvision.models import resnet50
    except ImportError as error:
        raise CaptionerError(f"ResNet-50 needs torchvision ({error}): pip install 'unprompt[open-clip]'") from error
    network: nn.Module = resnet50(weights=None)
    return network


def _resnet50_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".safetensors", ".pth", ".pt", ".bin") or path.is_absolute() or name.startswith("."):
        raise CaptionerError(f"there is no file {name!r}: check the path")
    return obtain(name, [("model.safetensors",)]) / "model.safetensors"


def _load_resnet50(network: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Mapping[str, Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        # A backbone without classifier is as good; ours is never asked.
        missing, unexpected = network.load_state_dict({**_classifier(network), **weights}, strict=False)
    except UnpicklingError:
        raise CaptionerError(f"{path} holds more than tensors and was not read: save a plain state dict") from None
    except Exception as error:  # safetensors and torch raise many kinds for a damaged file
        detail = " ".join(str(error).split())[:160]
        raise CaptionerError(f"{path} is no state dict of a ResNet-50 ({detail}): name another file") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        wrong = [*missing, *unexpected]
        raise CaptionerError(
            f"{path} is no state dict of a ResNet-50 ({len(wrong)} names differ, {wrong[0]} first): name another file"
        )


def _classifier(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
