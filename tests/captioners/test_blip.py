"""BLIP and BLIP-2 on small random models: our decoding against transformers' own `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unprompt.captioners import blip
from unprompt.captioners.decode import DecodeConfig, greedy
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.neighbours import NeighbourMixture
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError

ensure_torchvision()
transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *("a", "photo", "of", "the", "red", "green", "cat", "dog", "oil", "painting", "by", "night")]
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
VISION |= {"image_size": 16, "initializer_range": 0.5}


def save(folder: Path, model: Any, vocabulary: list[str] = WORDS) -> Path:
    (folder / "vocab.txt").parent.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    transformers.BlipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def sharpen(model: Any, scale: float = 6.0) -> Any:
    """Random weights hardly look at the picture; larger ones do, and choose tokens with a margin."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(scale)
    return model


def text_sizes() -> dict[str, int]:
    return {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(WORDS)}


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text = {**text_sizes(), "intermediate_size": 24, "max_position_embeddings": 32}
    text |= {"bos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(vision_config=VISION, text_config=text)
    return save(tmp_path_factory.mktemp("blip"), sharpen(transformers.BlipForConditionalGeneration(config)))


def save_blip2(folder: Path, text: dict[str, Any]) -> Path:
    torch.manual_seed(1)
    words = [*WORDS, "<image>"]
    sizes = {**text_sizes(), "vocab_size": len(words)}
    qformer = {**text_sizes(), "intermediate_size": 24, "encoder_hidden_size": 16}
    config = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config=qformer,
        text_config={**sizes, **text},
        num_query_tokens=3,
        image_token_index=len(words) - 1,
    )
    return save(folder, sharpen(transformers.Blip2ForConditionalGeneration(config), 4.0), words)


@pytest.fixture(scope="module")
def opt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = {"model_type": "opt", "ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 32}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    return save_blip2(tmp_path_factory.mktemp("blip2-opt"), text)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    text |= {"eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 0}
    return save_blip2(tmp_path_factory.mktemp("blip2-t5"), text)


def pictures() -> list[Image.Image]:
    gradient = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    return [gradient, gradient.rotate(90).point(lambda value: 255 - value // 2), Image.new("RGB", (33, 20), (0, 0, 90))]


@pytest.fixture(params=["blip_folder", "opt_folder", "t5_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_greedy_writes_what_generate_writes(folder: Path, prompt: str) -> None:
    captioner = blip.load(str(folder), prompt=prompt)
    pixels = captioner.processor(images=pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        decoder, state, begin, end = captioner._start(pixels)
        found = greedy(decoder, state, DecodeConfig(begin, end, max_tokens=9))
    expected = generated(captioner, pixels)
    assert end == 3
    assert len({each[0].tokens for each in found}) > 1, "the pictures make no difference"
    for (hypothesis,), tokens in zip(found, expected, strict=True):
        written = [*hypothesis.tokens, end] if hypothesis.finished else list(hypothesis.tokens)
        assert written == (tokens[: tokens.index(3) + 1] if 3 in tokens else tokens)


def generated(captioner: blip.BlipCaptioner, pixels: torch.Tensor) -> list[list[int]]:
    """The continuations that transformers' own greedy search gives."""
    model, text = captioner.model, captioner.model.config.text_config
    options = {"max_new_tokens": 9, "do_sample": False, "num_beams": 1}
    count = len(pixels)
    if model.config.model_type == "blip":
        ids = torch.tensor([[2, *captioner.prompt, 3]] * count)  # generate drops the last
        out = model.generate(pixels, input_ids=ids, **options)
        return [row[1 + len(captioner.prompt) :].tolist() for row in out]
    image = [model.config.image_token_index] * model.config.num_query_tokens
    if model.config.use_decoder_only_language_model:
        ids = [*image, text.bos_token_id, *captioner.prompt]
        out = model.generate(pixels, input_ids=torch.tensor([ids] * count), eos_token_id=3, **options)
        return [row.tolist()[len(ids) :] if len(row) > 9 else row.tolist() for row in out]
    ids = [*image, *captioner.prompt, text.eos_token_id]
    options |= {"decoder_start_token_id": 0, "eos_token_id": 3, "pad_token_id": 0}
    return [row.tolist()[1:] for row in model.generate(pixels, input_ids=torch.tensor([ids] * count), **options)]


def test_captions_are_candidates(folder: Path) -> None:
    captioner = blip.load(str(folder))
    found = captioner.caption(pictures(), num_beams=3, max_tokens=6)
    assert [len(each) for each in found] == [3, 3, 3]
    for each in found:
        scores = [candidate.score for candidate in each]
        assert scores == sorted(scores, reverse=True)
        assert max(scores) <= 0
        for candidate in each:
            (part,) = candidate.parts
            assert part.source == f"blip:{folder}"
            assert not set(candidate.prompt.split()) & {"[PAD]", "[CLS]", "[SEP]", "<image>"}
    assert captioner.caption([], num_beams=3, max_tokens=6) == []


def test_pictures_do_not_depend_on_their_batch(folder: Path) -> None:
    captioner = blip.load(str(folder))
    together = captioner.caption(pictures(), num_beams=2, max_tokens=5)
    for picture, expected in zip(pictures(), together, strict=True):
        (alone,) = captioner.caption([picture], num_beams=2, max_tokens=5)
        assert [each.prompt for each in alone] == [each.prompt for each in expected]
        assert [each.score for each in alone] == pytest.approx([each.score for each in expected], abs=1e-4)


def test_neighbours_are_heard(blip_folder: Path) -> None:
    captioner = blip.load(str(blip_folder), mixture=NeighbourMixture(share=0.999))
    told = [["green dog by night"], ["oil painting"], []]
    found = captioner.caption(pictures(), num_beams=2, max_tokens=6, neighbours=told)
    assert [each[0].prompt for each in found[:2]] == ["green dog by night", "oil painting"]
    plain = captioner.caption(pictures(), num_beams=2, max_tokens=6)
    prompts = [[candidate.prompt for candidate in each] for each in (plain[2], found[2])]
    assert prompts[0] == prompts[1]


def refused(name: str) -> str:
    with pytest.raises((CaptionerError, EncoderError)) as raised:
        blip.load(name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_cannot_be_loaded(tmp_path: Path, blip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("Salesforce/blip-image-captioning-base")
    assert "there is no folder" in refused("./nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "is a 'gpt2' model: use one of blip, blip-2" in refused(str(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in blip_folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    from safetensors.torch import load_file, save_file

    weights = load_file(blip_folder / "model.safetensors")
    del weights["vision_model.post_layernorm.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    assert "lacks 1 weights, vision_model.post_layernorm.weight first" in refused(str(broken))
