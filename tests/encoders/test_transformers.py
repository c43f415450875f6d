"""The CLIP and SigLIP encoders against transformers itself, on small random models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_models import SIZES, TEXTS, picture, save_clip, save_siglip
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError
from unprompt.types import Encoder

ensure_torchvision()
transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'unprompt[transformers]'")
import torch  # noqa: E402

from unprompt.encoders import transformers as subject  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "no_hub")

IMAGES = [picture(*size) for size in SIZES]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece", reason="SigLIP's tokenizer needs sentencepiece")
    return save_siglip(tmp_path_factory.mktemp("models") / "siglip")


def normalised(features: torch.Tensor) -> Any:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def reference_images(folder: Path, backend: str = "pil") -> Any:
    """Through the model's whole forward, which normalises by itself, and its image processor."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
    pixels = torch.cat([processor(images=image, return_tensors="pt")["pixel_values"] for image in IMAGES])
    text = torch.ones((1, 4), dtype=torch.long)
    with torch.inference_mode():
        return model(pixel_values=pixels, input_ids=text).image_embeds.numpy()


def reference_texts(folder: Path, **options: Any) -> Any:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, return_tensors="pt", truncation=True, **options)
    pixels = torch.zeros((1, 3, 32, 32))
    with torch.inference_mode():
        return model(pixel_values=pixels, **tokens).text_embeds.numpy()


def test_clip_equals_transformers(clip: Path) -> None:
    encoder = subject.load(str(clip))
    np.testing.assert_allclose(encoder.encode_images(IMAGES), reference_images(clip), atol=2e-6)
    want = reference_texts(clip, padding=True, max_length=20)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=2e-6)


def test_siglip_equals_transformers(siglip: Path) -> None:
    encoder = subject.load(str(siglip))
    np.testing.assert_allclose(encoder.encode_images(IMAGES), reference_images(siglip), atol=2e-6)
    want = reference_texts(siglip, padding="max_length", max_length=16)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=2e-6)
    unpadded = reference_texts(siglip, padding=True, max_length=10)
    assert np.abs(unpadded - want).max() > 1e-3, "padding makes no difference: a blind test"


PROCESSORS = {
    "resized to more than the crop": {"size": {"shortest_edge": 41}, "crop_size": {"height": 32, "width": 32}},
    "bilinear": {"resample": 2},
    "not normalised": {"do_normalize": False},
    "other statistics": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    "squashed": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
}


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_preprocessing_equals_the_image_processors(clip: Path, tmp_path: Path, processor: dict[str, Any]) -> None:
    folder = with_processor(clip, tmp_path, processor)
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    ours = subject.preprocessing(theirs)
    for image in IMAGES:
        pixels = theirs(images=image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        want = np.rint((pixels * np.array(ours.std) + np.array(ours.mean)) * 255)
        np.testing.assert_array_equal(ours(image), want)
    encoder = subject.load(str(folder))
    np.testing.assert_allclose(encoder.encode_images(IMAGES), reference_images(folder), atol=2e-6)


def test_the_torchvision_image_processor_differs_little(clip: Path) -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    rows, theirs = subject.load(str(clip)).encode_images(IMAGES), reference_images(clip, backend="torchvision")
    assert (rows * theirs).sum(axis=1).min() > 0.999


def with_processor(model: Path, tmp_path: Path, values: dict[str, Any]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


REFUSED = {
    "pads": ({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "do_pad=True"),
    "does not resize": ({"do_resize": False}, "do_resize=False"),
    "does not crop": ({"do_center_crop": False}, "size={'shortest_edge': 32}"),
    "crops more than it has": ({"crop_size": {"height": 40, "width": 40}}, "crop_size={'height': 40, 'width': 40}"),
    "rescales otherwise": ({"rescale_factor": 0.5}, "rescale_factor=0.5"),
    "hamming": ({"resample": 5}, "resample=5"),
    "another kind": ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor itself"),
}


@pytest.mark.parametrize(("values", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_preprocessing_cannot_do_is_refused(
    clip: Path, tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    folder = with_processor(clip, tmp_path, values)
    with pytest.raises(EncoderError, match="is not supported: use a model") as error:
        subject.load(str(folder))
    assert named in str(error.value)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_output_contract(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    encoder = subject.load(str(folder))
    assert isinstance(encoder, Encoder)
    assert encoder.name == f"transformers:{folder}"
    assert encoder.dim == {"clip": 24, "siglip": 32}[family]
    for rows, total in ((encoder.encode_images(IMAGES), len(IMAGES)), (encoder.encode_texts(TEXTS), len(TEXTS))):
        assert rows.shape == (total, encoder.dim)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_half_precision_stays_close(family: str, request: pytest.FixtureRequest) -> None:
    from unprompt.encoders.joint import JointEncoder

    full = subject.load(str(request.getfixturevalue(family)))
    want, want_texts = full.encode_images(IMAGES), full.encode_texts(TEXTS)
    half = JointEncoder("half", full.dim, "", full.preprocess, full._model, full._towers, dtype=torch.float16)
    assert (want * half.encode_images(IMAGES)).sum(axis=1).min() > 0.9999
    assert (want_texts * half.encode_texts(TEXTS)).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_loading_is_quiet(family: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    folder = request.getfixturevalue(family)
    capfd.readouterr()
    subject.load(str(folder))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_batches_and_order_do_not_matter(family: str, request: pytest.FixtureRequest) -> None:
    encoder = subject.load(str(request.getfixturevalue(family)))
    texts = [f"{'cat ' * (seed * 5 % 7)}text {seed}" for seed in range(7)]
    rows, images = encoder.encode_texts(texts), encoder.encode_images(IMAGES)
    encoder.batch_size = 2
    np.testing.assert_allclose(encoder.encode_texts(texts), rows, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_images(IMAGES), images, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([encoder.encode_texts([text]) for text in texts]), rows, atol=1e-6)


def test_features_as_tensors_or_in_a_record() -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    features = torch.ones(2, 3)
    assert subject.pooled(features) is features
    assert subject.pooled(BaseModelOutputWithPooling(pooler_output=features)) is features


def test_half_precision_checkpoint_has_the_same_fingerprint(clip: Path, tmp_path: Path) -> None:
    """float16 weights, saved as float16 and as float32."""
    for name in ("half", "full"):
        shutil.copytree(clip, tmp_path / name)
        model = transformers.AutoModel.from_pretrained(clip).half()
        (model if name == "half" else model.float()).save_pretrained(tmp_path / name)
    half, full = subject.load(str(tmp_path / "half")), subject.load(str(tmp_path / "full"))
    assert half.fingerprint == full.fingerprint != subject.load(str(clip)).fingerprint
    np.testing.assert_array_equal(half.encode_texts(TEXTS), full.encode_texts(TEXTS))


def test_fingerprint_notices_preprocessing_and_activation(clip: Path, tmp_path: Path) -> None:
    first = subject.load(str(clip)).fingerprint
    other = subject.load(str(with_processor(clip, tmp_path, {"resample": 2})))
    gelu = save_clip(tmp_path / "gelu", hidden_act="gelu")
    assert len({first, other.fingerprint, subject.load(str(gelu)).fingerprint}) == 3
    assert subject.load(str(save_clip(tmp_path / "same"))).fingerprint == first


def test_bad_names_give_one_clear_line() -> None:
    for name, message in (
        (
            "openai/clip-vit-base-patch32",
            "'openai/clip-vit-base-patch32' is not in the cache and HF_HUB_OFFLINE is set",
        ),
        ("./nowhere", "there is no folder './nowhere'"),
        ("not a name", "'not a name' is neither a folder nor a hub repository"),
    ):
        with pytest.raises(EncoderError, match=message) as error:
            subject.load(name)
        assert "\n" not in str(error.value)


def test_a_hub_name_loads_from_the_folder_it_was_downloaded_to(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(subject, "obtain", lambda name, groups, extras: asked.append((name, groups)) or clip)
    encoder = subject.load("someone/clip")
    assert encoder.name == "transformers:someone/clip"
    assert asked == [("someone/clip", subject.FILES)]
    assert encoder.fingerprint == subject.load(str(clip)).fingerprint


def test_damaged_folders_give_one_clear_line(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        "empty": "cannot be loaded by AutoConfig",
        "no weights": "cannot be loaded by AutoModel",
        "bad weights": "cannot be loaded by AutoModel",
        "no processor": "cannot be loaded by AutoImageProcessor",
        "another model": "is a 'bert' model: use one of clip, siglip",
        "text only": r"lacks \d+ weights, .* first",
    }
    for name in set(cases) - {"empty"}:
        shutil.copytree(clip, tmp_path / name)
    (tmp_path / "no weights" / "model.safetensors").unlink()
    (tmp_path / "bad weights" / "model.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "no processor" / "preprocessor_config.json").unlink()
    (tmp_path / "another model" / "config.json").write_text('{"model_type": "bert"}')
    transformers.CLIPTextModel.from_pretrained(clip).save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").replace(tmp_path / "text only" / "model.safetensors")
    for name, message in cases.items():
        with pytest.raises(EncoderError, match=message) as error:
            subject.load(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderError, match=r"pip install 'unprompt\[transformers\]'"):
        subject.load("openai/clip-vit-base-patch32")
