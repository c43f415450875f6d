"""OFA's picture trunk: the first three stages of a ResNet, in bottleneck blocks, without a pooled end.

The architecture is He et al., "Deep residual learning for image recognition" (2016), with the stride in the middle
convolution (v1.5).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 1024
"""Channels of the result."""
STRIDE = 16
"""Pixels of the picture along one side of a cell of the result."""
_EXPANSION = 4


class Bottleneck(nn.Module):
    """Three convolutions (1x1, 3x3, 1x1) around a narrow middle, added to the input."""

    def __init__(self, channels: int, middle: int, stride: int = 1) -> None:
        super().__init__()
        out = middle * _EXPANSION
        self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        # Named by their places: the official checkpoints call them downsample.0 and downsample.1.
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * middle, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Pictures to a grid of `WIDTH` channels, one cell for each `STRIDE` x `STRIDE` pixels.

    Args:
        blocks: bottlenecks of each of the three stages.

    """

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) normalised pictures -> (N, 1024, H / 16, W / 16), rounded up."""
        x = F.relu(self.bn1(self.conv1(pictures)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        grid: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return grid


def _stage(channels: int, middle: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(middle * _EXPANSION, middle) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(channels, middle, stride), *rest)
