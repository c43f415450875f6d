"""What the fingerprint notices, and what it must not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")

from unprompt.encoders.fingerprint import fingerprint, tokenizer_hash, weights_hash  # noqa: E402


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Values of bfloat16, so that every dtype holds them exactly.
    return {
        "b.weight": torch.randn(4, 3, generator=generator).to(torch.bfloat16).float(),
        "a.bias": torch.randn(5, generator=generator).to(torch.bfloat16).float(),
        "scale": torch.tensor(2.5),
    }


def test_the_hash_is_this_formula() -> None:
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3.0), "ids": torch.arange(4)}
    whole = ""
    for name, shape in (("a", "()"), ("b", "(2,)")):
        digest = hashlib.sha256(tensors[name].numpy().astype("<f4").tobytes()).hexdigest()
        whole += f"{name} {shape} {digest}\n"
    assert weights_hash(tensors) == hashlib.sha256(whole.encode()).hexdigest()


def test_order_dtype_and_strides_do_not_matter() -> None:
    first = weights_hash(weights())
    assert weights_hash(dict(reversed(weights().items()))) == first
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert weights_hash({name: tensor.to(dtype) for name, tensor in weights().items()}) == first
    strided = {**weights(), "b.weight": weights()["b.weight"].t().contiguous().t()}
    assert weights_hash(strided) == first
    assert weights_hash({**weights(), "position_ids": torch.arange(7)}) == first


def test_every_value_name_and_shape_matters() -> None:
    changed, reshaped, renamed = weights(), weights(), weights()
    changed["b.weight"][3, 2] += 1
    reshaped["b.weight"] = reshaped["b.weight"].reshape(3, 4)
    renamed["c.weight"] = renamed.pop("b.weight")
    assert len({weights_hash(each) for each in (weights(), changed, reshaped, renamed)}) == 4


def tokenize(texts: Sequence[str], length: int = 40, lower: bool = False) -> dict[str, torch.Tensor]:
    rows = [[ord(letter) for letter in (text.lower() if lower else text)[:length]] for text in texts]
    return {"ids": torch.tensor([row + [0] * (length - len(row)) for row in rows])}


def test_tokenizers_are_told_apart_by_what_they_do() -> None:
    first = tokenizer_hash(tokenize)
    assert tokenizer_hash(tokenize) == first
    assert tokenizer_hash(lambda texts: tokenize(texts, length=41)) != first
    assert tokenizer_hash(lambda texts: tokenize(texts, lower=True)) != first


def test_each_part_counts() -> None:
    base = fingerprint(weights(), {"size": [8, 8]}, "t", act="gelu")
    assert len(base) == 64
    assert base == fingerprint(weights(), {"size": [8, 8]}, "t", act="gelu")
    others = [
        fingerprint({}, {"size": [8, 8]}, "t", act="gelu"),
        fingerprint(weights(), {"size": [9, 8]}, "t", act="gelu"),
        fingerprint(weights(), {"size": [8, 8]}, "u", act="gelu"),
        fingerprint(weights(), {"size": [8, 8]}, "t", act="quick_gelu"),
    ]
    assert len({base, *others}) == 5
