"""What the tests share with the script that runs under the reference's Python: a vocabulary, and weights by a formula.

It needs torch and tokenizers alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn

WORDS = ("what", "does", "the", "image", "describe", "a", "photo", "of", "cat", "painting")
OFFICIAL = 50265
"""Tokens of the official vocabulary, without codes and bins."""


def write_vocabulary(folder: Path, size: int = 0) -> None:
    """Writes ``vocab.json`` and ``merges.txt`` of GPT-2's kind, OFA's special tokens in their official places.

    With ``size``, unused tokens fill the vocabulary up to it.
    """
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet())]
    merges = []
    for start in ("Ġ", ""):  # with the space before it, which merges first, and without
        for word in WORDS:
            whole, *rest = [*start, *word]
            for letter in rest:
                if whole + letter not in tokens:
                    merges.append(f"{whole} {letter}")
                    tokens.append(whole + letter)
                whole += letter
    tokens += [f"unused{i}" for i in range(size - len(tokens) - 1)]
    tokens.append("<mask>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def wave(shape: tuple[int, ...], phase: float) -> Tensor:
    """Numbers between -1 and 1 that are the same everywhere."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) ** 1.1 + phase).sin().reshape(shape).float()


def fill(model: nn.Module) -> None:
    """Sets every parameter and statistic by a formula of its name, shape and index."""
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            values = wave(tuple(tensor.shape), float(sum(name.encode()) % 97))
            if tensor.dim() >= 2:
                tensor.copy_(2 * values * (tensor[0].numel() if "table" not in name else 4) ** -0.5)
            else:
                bias = name.endswith(("bias", "running_mean"))
                tensor.copy_(0.2 * values + (0.0 if bias else 1.0))


def formula_inputs() -> dict[str, Tensor]:
    """Two pictures, their questions, one of them padded, and answers, for a vocabulary of 60."""
    questions = torch.tensor([[0, 7, 9, 11, 2, 1, 1], [0, 8, 13, 5, 21, 40, 2]])
    tokens = torch.tensor([[0, 5, 17, 9, 9, 33], [0, 41, 4, 52, 20, 59]])
    return {"pictures": wave((2, 3, 64, 48), 0.0), "questions": questions, "tokens": tokens}
