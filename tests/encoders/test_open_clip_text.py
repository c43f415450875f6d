"""Text towers cut to a batch's longest text, against open_clip's own full length, on small random models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_models import OPEN_CLIP_CONFIG, save_open_clip
from unprompt.encoders.torchvision_fix import ensure_torchvision

ensure_torchvision()
open_clip = pytest.importorskip("open_clip", reason="needs the extra: pip install 'unprompt[open-clip]'")
import torch  # noqa: E402

from unprompt.encoders import open_clip as loading  # noqa: E402
from unprompt.encoders.open_clip_text import TextTower  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

VISION = OPEN_CLIP_CONFIG["vision_cfg"]
TEXT = {"context_length": 20, "vocab_size": 60, "width": 32, "heads": 2, "layers": 2}
END, LENGTHS = 59, (3, 7, 1, 9, 2)
LAYER_SCALE = {"ls_init_value": 0.1}
CUSTOM_BLOCKS = {"qk_norm": True, "scale_heads": True, "scale_attn": True, "scale_fc": True}

CUT: dict[str, dict[str, Any]] = {
    "at the greatest id": {},
    "at the first end": {"pool_type": "eos", "eos_id": END},
    "layer scale, biased projection": {**LAYER_SCALE, "proj_bias": True},
    "custom blocks": CUSTOM_BLOCKS,
}
WHOLE: dict[str, dict[str, Any]] = {
    "looks both ways": {"no_causal_mask": True},
    "answers at the last position": {"pool_type": "last"},
    "SigLIP": {"no_causal_mask": True, "pool_type": "last", "pad_id": 1},
    "answers at the first position": {"pool_type": "first"},
}


def token_ids(*lengths: int, width: int = 20, seed: int = 0) -> Any:
    """(B, width) ids of random words, then the end, then padding."""
    rng = np.random.default_rng(seed)
    rows = [[*rng.integers(2, END, length), END, *[0] * (width - length - 1)] for length in lengths]
    return torch.tensor(np.array(rows, dtype=np.int64))


def model_of(kind: Any, text: dict[str, Any]) -> Any:
    """A model whose text tower is anything but at its initial state, where positions are all but equal."""
    known = {key: value for key, value in text.items() if key in open_clip.CLIPTextCfg.__dataclass_fields__}
    if known != text:
        pytest.skip(f"this open_clip has no {sorted(set(text) - set(known))}")
    torch.manual_seed(0)
    model = kind(24, VISION, {**TEXT, **text}).eval().requires_grad_(False)
    for name, weights in model.named_parameters():
        if "positional_embedding" in name or "cls_emb" in name or "token_embedding" in name:
            weights.copy_(torch.randn_like(weights))
    return model


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("text", CUT.values(), ids=CUT.keys())
def test_causal_towers_are_cut(kind: Any, text: dict[str, Any]) -> None:
    model = model_of(kind, text)
    check(model, token_ids(*LENGTHS), 10)
    check(model, token_ids(*LENGTHS, 19), 20)
    check(model, token_ids(0, 0), 1)


def check(model: Any, ids: Any, columns: int) -> None:
    tower = TextTower(model)
    cut = tower.cut(ids)
    assert cut.shape == (len(ids), columns)
    with torch.inference_mode():
        torch.testing.assert_close(tower.encode(cut), model.encode_text(ids), atol=5e-6, rtol=1e-5)


def test_an_end_in_the_middle_and_none_at_all_are_the_full_lengths() -> None:
    model = model_of(open_clip.CLIP, {"pool_type": "eos", "eos_id": 50})
    ids = token_ids(*LENGTHS)
    ids[0, :2], ids[1, 3], ids[1, 5] = 3, 50, 50
    ids[2:][ids[2:] == 50] = 3
    check(model, ids, 4)


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP], ids=["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE.keys())
def test_towers_that_padding_matters_to_are_not_cut(kind: Any, text: dict[str, Any]) -> None:
    model, ids = model_of(kind, text), token_ids(*LENGTHS)
    check(model, ids, 20)
    if text.get("pool_type") != "first":
        changed = ids.clone()
        changed[:, 12:][changed[:, 12:] == 0] = 1
        with torch.inference_mode():
            moved = (model.encode_text(changed) - model.encode_text(ids)).abs().max()
        assert moved > 1e-3, "padding makes no difference: a blind test"


@pytest.mark.parametrize("name", ["CustomTextCLIP", "CoCa"])
def test_a_class_token_behind_the_padding_is_not_cut(name: str) -> None:
    text = {**TEXT, "embed_cls": True, "output_tokens": name == "CoCa"}
    torch.manual_seed(0)
    if name == "CoCa":
        multimodal = {"width": 32, "heads": 2, "layers": 1, "context_length": 20, "vocab_size": 60}
        model = open_clip.CoCa(24, multimodal, text, {**VISION, "attentional_pool": True, "attn_pooler_heads": 2})
    else:
        model = open_clip.CustomTextCLIP(24, VISION, text)
    check(model.eval(), token_ids(*LENGTHS), 20)


def test_what_inherits_from_clip_is_not_cut() -> None:
    class AnswersLast(open_clip.CLIP):  # type: ignore[misc]
        def encode_text(self, text: Any, normalize: bool = False) -> Any:
            self.text_pool_type = "last"
            return super().encode_text(text, normalize)

    check(model_of(AnswersLast, {}), token_ids(*LENGTHS), 20)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"])
def test_towers_of_transformers_are_cut_to_what_is_not_padding(architecture: str, pooler: str) -> None:
    model = hugging_face_model(architecture, pooler)
    check(model, token_ids(*LENGTHS), 10)
    check(model, token_ids(*LENGTHS, 19), 20)
    nothing = token_ids(*LENGTHS)
    nothing[1] = 0
    assert TextTower(model).cut(nothing).shape == (5, 20)
    left = token_ids(*LENGTHS).flip(1)
    check(model, left, 20)


def hugging_face_model(architecture: str, pooler: str) -> Any:
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.AutoConfig.for_model(
        architecture, vocab_size=60, max_position_embeddings=24, pad_token_id=0, **shape
    )
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(24, VISION, TEXT)
    model.text = HFTextEncoder("", 24, config=config, pooler_type=pooler, proj_type="linear")
    return model.eval()


def test_other_towers_of_transformers_are_not_cut() -> None:
    model = hugging_face_model("bert", "max_pooler")
    assert TextTower(model).cut(token_ids(*LENGTHS)).shape == (5, 20)
    model = hugging_face_model("bert", "mean_pooler")
    model.text.config.model_type = "somebody's"
    assert TextTower(model).cut(token_ids(*LENGTHS)).shape == (5, 20)


def test_threads_share_a_model_that_stays_as_it_is() -> None:
    model = model_of(open_clip.CLIP, {})
    tower, before = TextTower(model), {name: value.clone() for name, value in model.state_dict().items()}
    batches = [token_ids(*[length] * 4, seed=length) for length in range(1, 19)]
    with torch.inference_mode():
        want = [model.encode_text(ids) for ids in batches]

    def encode(ids: Any) -> Any:
        with torch.inference_mode():
            return tower.encode(tower.cut(ids))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encode, batches * 3))
    torch.testing.assert_close(found, want * 3, atol=5e-6, rtol=1e-5)
    assert model.positional_embedding.shape[0] == model.attn_mask.shape[0] == 20
    torch.testing.assert_close(dict(model.state_dict()), before, atol=0, rtol=0)


def test_a_loaded_encoder_pads_little_and_keeps_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_open_clip(tmp_path / "clip", OPEN_CLIP_CONFIG, {})
    encoder = loading.load(str(folder))
    assert encoder._towers.tokenize(["a cat", "a dog"])["text"].shape == (2, 4)
    assert encoder._towers.tokenize(["a cat", "word " * 300])["text"].shape == (2, 77)
    monkeypatch.setattr(TextTower, "cut", lambda self, ids: ids)
    whole = loading.load(str(folder))
    assert whole.fingerprint == encoder.fingerprint
    texts = ["a cat", "", "a photo of many words, " * 3]
    np.testing.assert_allclose(encoder.encode_texts(texts), whole.encode_texts(texts), atol=2e-6)
