"""open_clip's encoder against open_clip itself, on small random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_models import OPEN_CLIP_CONFIG, SIZES, TEXTS, picture, save_open_clip
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError
from unprompt.types import Encoder

ensure_torchvision()
open_clip = pytest.importorskip("open_clip", reason="needs the extra: pip install 'unprompt[open-clip]'")
import torch  # noqa: E402

from unprompt.encoders import open_clip as subject  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "no_hub")

PREPROCESSING = {
    "default": {},
    "squash": {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    "bilinear": {"interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "unnormalised": {"interpolation": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("clip") / "small", OPEN_CLIP_CONFIG, {})


@pytest.fixture
def architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Registers the small architecture under a name of its own, for one test."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    path = tmp_path / "Tiny-B-8.json"
    path.write_text(json.dumps(OPEN_CLIP_CONFIG))
    open_clip.add_model_config(path)
    return "Tiny-B-8"


@pytest.fixture
def tagged(architecture: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def register(**values: Any) -> None:
        tag = {"hf_hub": "someone/tiny/", "interpolation": "bicubic", "resize_mode": "squash", **values}
        tag = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), **tag}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, architecture, {"first": tag})

    return register


def reference(name: str, **options: Any) -> tuple[Any, Any, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(name, **options)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


def check_parity(encoder: Encoder, model: Any, preprocess: Any, tokenizer: Any) -> None:
    images = [picture(*size) for size in SIZES]
    with torch.inference_mode():
        want = model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True).numpy()
        want_texts = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images(images), want, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), want_texts, atol=2e-6)


@pytest.mark.parametrize("preprocess", PREPROCESSING.values(), ids=PREPROCESSING.keys())
def test_equals_open_clip(tmp_path: Path, preprocess: dict[str, Any]) -> None:
    folder = save_open_clip(tmp_path / "model", OPEN_CLIP_CONFIG, preprocess)
    check_parity(subject.load(str(folder)), *reference(f"local-dir:{folder}"))


def test_preprocessing_equals_open_clips_pixel_by_pixel(folder: Path) -> None:
    _, preprocess, _ = reference(f"local-dir:{folder}")
    ours = subject.load(str(folder)).preprocess
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (ours.mean, ours.std))
    for size in SIZES:
        theirs = preprocess(picture(*size)).numpy() * std + mean
        np.testing.assert_array_equal(ours(picture(*size)), np.rint(theirs * 255).transpose(1, 2, 0))


@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_equals_open_clip_with_an_oblong_input(tmp_path: Path, resize: str) -> None:
    config = {**OPEN_CLIP_CONFIG, "vision_cfg": {**OPEN_CLIP_CONFIG["vision_cfg"], "image_size": [24, 40]}}
    folder = save_open_clip(tmp_path / "model", config, {"resize_mode": resize, "interpolation": "bilinear"})
    check_parity(subject.load(str(folder)), *reference(f"local-dir:{folder}"))


def test_architecture_with_a_tag(
    tmp_path: Path, architecture: str, tagged: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged(quick_gelu=True)
    folder = save_open_clip(tmp_path / "hub", OPEN_CLIP_CONFIG, {})
    asked = []
    monkeypatch.setattr(subject, "obtain", lambda *request: asked.append(request) or folder)
    encoder = subject.load(f"{architecture}/first")
    assert encoder.name == "open_clip:Tiny-B-8/first"
    assert asked == [("someone/tiny", [subject.WEIGHTS])]
    options = {"pretrained": str(folder / "open_clip_model.safetensors"), "force_quick_gelu": True}
    preprocess = {"resize_mode": "squash", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    model = open_clip.create_model(architecture, **options, force_preprocess_cfg=preprocess).eval()
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    check_parity(encoder, model, transform, open_clip.get_tokenizer(architecture))
    plain = open_clip.create_model(architecture, pretrained=options["pretrained"]).eval()
    with torch.inference_mode():
        other = plain.encode_text(open_clip.get_tokenizer(architecture)(TEXTS), normalize=True).numpy()
    assert np.abs(encoder.encode_texts(TEXTS) - other).max() > 1e-5, "the activation makes no difference: a blind test"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_architecture_with_a_checkpoint_file(tmp_path: Path, folder: Path, architecture: str, suffix: str) -> None:
    from safetensors.torch import load_file

    checkpoint = folder / "open_clip_model.safetensors"
    if suffix == "pt":
        weights = load_file(checkpoint)
        checkpoint = tmp_path / "epoch_9.pt"
        torch.save({"epoch": 9, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, checkpoint)
    encoder = subject.load(f"{architecture}/{checkpoint}")
    assert encoder.name == f"open_clip:{architecture}/{checkpoint}"
    assert encoder.fingerprint == subject.load(str(folder)).fingerprint
    check_parity(encoder, *reference(architecture, pretrained=str(checkpoint)))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, architecture: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderError, match=r"evil\.pt cannot be loaded"):
        subject.load(f"{architecture}/{tmp_path}/evil.pt")
    assert not (tmp_path / "ran").exists()


def test_output_contract(folder: Path) -> None:
    encoder = subject.load(str(folder))
    assert isinstance(encoder, Encoder)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 24)
    pixels = [encoder.preprocess(picture(*size)) for size in SIZES]
    np.testing.assert_array_equal(encoder.encode_images(pixels), encoder.encode_images([picture(*s) for s in SIZES]))


def test_hub_repository(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "obtain", lambda repository, *_, **__: {"someone/small": folder}[repository])
    encoder = subject.load("hf-hub:someone/small")
    assert encoder.name == "open_clip:hf-hub:someone/small"
    check_parity(encoder, *reference(f"local-dir:{folder}"))


def test_local_dir_spelling_and_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for name in ("local-dir:small", "./small", f"local-dir:{folder}"):
        assert subject.load(name).name == f"open_clip:local-dir:{folder}"


def test_half_precision_stays_close(folder: Path) -> None:
    from unprompt.encoders.joint import JointEncoder

    full = subject.load(str(folder))
    images = [picture(*size) for size in SIZES]
    want, want_texts = full.encode_images(images), full.encode_texts(TEXTS)
    half = JointEncoder("half", full.dim, "", full.preprocess, full._model, full._towers, dtype=torch.float16)
    got, got_texts = half.encode_images(images), half.encode_texts(TEXTS)
    assert got.dtype == got_texts.dtype == np.float32
    assert (want * got).sum(axis=1).min() > 0.9999
    assert (want_texts * got_texts).sum(axis=1).min() > 0.9999
    assert np.abs(got - want).max() > 0, "half precision was not used"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(folder: Path) -> None:
    cpu, cuda = subject.load(str(folder)), subject.load(str(folder), "cuda")
    assert cuda.fingerprint == cpu.fingerprint
    assert cuda.dtype == torch.float16
    cuda.batch_size = 4
    images = [picture(*size) for size in SIZES]
    assert (cpu.encode_images(images) * cuda.encode_images(images)).sum(axis=1).min() > 0.999
    assert (cpu.encode_texts(TEXTS) * cuda.encode_texts(TEXTS)).sum(axis=1).min() > 0.999


def test_fingerprint_tells_encoders_apart(tmp_path: Path, folder: Path) -> None:
    variants = {
        "other weights": ({}, {}, 1),
        "other preprocessing": ({}, {"resize_mode": "squash"}, 0),
        "other activation": ({"quick_gelu": True}, {}, 0),
        "other context length": ({"text_cfg": {**OPEN_CLIP_CONFIG["text_cfg"], "context_length": 40}}, {}, 0),
    }
    first = subject.load(str(folder)).fingerprint
    assert subject.load(str(save_open_clip(tmp_path / "same", OPEN_CLIP_CONFIG, {}))).fingerprint == first
    assert len(first) == 64
    prints = [
        subject.load(str(save_open_clip(tmp_path / name, {**OPEN_CLIP_CONFIG, **config}, preprocess, seed))).fingerprint
        for name, (config, preprocess, seed) in variants.items()
    ]
    assert len({first, *prints}) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSuchModel/openai", "has no model 'NoSuchModel'"),
        ("ViT-B-32", r"names no weights: use ViT-B-32/TAG .*openai"),
        ("ViT-B-32/no_such_tag", r"'no_such_tag' is neither a file nor a tag .*laion2b"),
        ("/no/such/folder", "there is no folder '/no/such/folder'"),
        ("local-dir:nowhere", "there is no folder 'nowhere'"),
        ("hf-hub:someone/unknown", "not in the cache and HF_HUB_OFFLINE is set: .*HF_HOME.* or pass a local folder"),
        ("hf-hub:a b/c", "'a b/c' is neither a folder nor a hub repository"),
        ("ViT-H-14/laion2b_s32b_b79k", "'laion/CLIP-ViT-H-14-laion2B-s32B-b79K' is not in the cache"),
        ("ViT-B-16-SigLIP/webli", "'timm/ViT-B-16-SigLIP' is not in the cache"),
    ],
)
def test_bad_names_give_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message) as error:
        subject.load(name)
    assert "\n" not in str(error.value)


def test_bad_folders_give_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"has no open_clip_config\.json"):
        subject.load(str(tmp_path / "empty"))
    damaged = save_open_clip(tmp_path / "damaged", OPEN_CLIP_CONFIG, {})
    (damaged / "open_clip_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match="cannot be loaded: SafetensorError"):
        subject.load(str(damaged))
    (damaged / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"cannot be loaded: .*could not be loaded"):
        subject.load(str(damaged))
    (damaged / "open_clip_config.json").write_text("{")
    with pytest.raises(EncoderError, match="cannot be read"):
        subject.load(str(damaged))
    (damaged / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    with pytest.raises(EncoderError, match="has no text_cfg, vision_cfg in model_cfg"):
        subject.load(str(damaged))


def test_padding_preprocessing_is_refused(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "longest", OPEN_CLIP_CONFIG, {"resize_mode": "longest"})
    with pytest.raises(EncoderError, match="resize_mode 'longest' pads"):
        subject.load(str(folder))


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(EncoderError, match=r"pip install 'unprompt\[open-clip\]'"):
        subject.load("ViT-B-32/openai")


def test_hugging_face_text_tower_is_built_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some architectures name a hub repository for their text tower's shape and for their tokenizer."""
    from safetensors.torch import save_file

    parts = save_text_tower(tmp_path / "parts")
    text = {
        "hf_model_name": str(parts),
        "hf_tokenizer_name": str(parts),
        "context_length": 12,
        "hf_model_pretrained": False,
    }
    config = {
        "embed_dim": 24,
        "vision_cfg": OPEN_CLIP_CONFIG["vision_cfg"],
        "text_cfg": {**text, "hf_pooler_type": "mean_pooler"},
    }
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(24, config["vision_cfg"], config["text_cfg"])
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    for names in ("hf_model_name", "hf_tokenizer_name"):
        config["text_cfg"][names] = "someone/tower"
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(EncoderError, match="'someone/tower' is not in the cache"):
        subject.load(str(folder))
    monkeypatch.setattr(subject, "obtain", lambda repository, *_, **__: {"someone/tower": parts}[repository])
    encoder = subject.load(str(folder))
    tokenizer = open_clip.tokenizer.HFTokenizer(str(parts), context_length=12)
    with torch.inference_mode():
        want = model.eval().encode_text(tokenizer(["a b", "c " * 40]), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(["a b", "c " * 40]), want, atol=2e-6)


def save_text_tower(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig

    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    RobertaConfig(vocab_size=7, max_position_embeddings=20, pad_token_id=1, **shape).save_pretrained(folder)
    return folder
