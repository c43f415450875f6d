"""`prompt-lm`: a language model of prompts, GPT-2 in plain torch with transformers' names for weights and options.

So the folder it is saved in loads as ``AutoModelForCausalLM`` too (a bridge does), while scoring prompts does not cost
the seconds that importing transformers takes. The model is Radford et al., "Language Models are Unsupervised Multitask
Learners" (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.captioners.interface import CaptionConfig, CaptionerError, CaptionModel, Memory
from unprompt.captioners.tokenizer import CaptionTokenizer

INITIAL_STD = 0.02
SCORED_TOGETHER = 64
"""Texts of one forward pass when scoring."""


@dataclass(frozen=True, slots=True)
class PromptLMConfig(CaptionConfig):
    """GPT-2's shape.

    Attributes:
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        width: of the residual stream.
        positions: most tokens of a text; a bridge's prefix counts too.
    """

    layers: int = 4
    heads: int = 4
    width: int = 256
    positions: int = 96

    def to_transformers(self, begin: int, end: int, pad: int) -> dict[str, Any]:
        """The same as a ``GPT2Config``'s JSON."""
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocabulary,
            "n_positions": self.positions,
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": True,
            "bos_token_id": begin,
            "eos_token_id": end,
            "pad_token_id": pad,
        }


class Conv1D(nn.Module):
    """A linear layer whose weight lies (inputs, outputs), as GPT-2's do."""

    def __init__(self, inputs: int, outputs: int, std: float = INITIAL_STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.T, self.bias)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: PromptLMConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.c_attn = Conv1D(config.width, 3 * config.width)
        self.c_proj = Conv1D(config.width, config.width, INITIAL_STD / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.c_attn(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, nh, T, hs)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast(Tensor, self.c_proj(mixed.transpose(1, 2).reshape(batch, length, width)))


class Feedforward(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, config: PromptLMConfig) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.width, 4 * config.width)
        self.c_proj = Conv1D(4 * config.width, config.width, INITIAL_STD / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: PromptLMConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = Feedforward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.ln_1(x)))
        return x + cast(Tensor, self.dropout(self.mlp(self.ln_2(x))))


class PromptLM(CaptionModel):
    """Prompts without pictures: trained like a captioner, but its memory is never looked at."""

    name = "prompt-lm"
    config_class = PromptLMConfig
    config: PromptLMConfig

    def __init__(self, config: PromptLMConfig) -> None:
        """Builds the model.

        Raises:
            CaptionerError: captions are longer than its positions.
        """
        super().__init__(config)
        if config.max_tokens > config.positions:
            raise CaptionerError(f"max_tokens {config.max_tokens} is more than {config.positions} positions: add some")
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocabulary, config.width),
                "wpe": nn.Embedding(config.positions, config.width),
                "drop": nn.Dropout(config.dropout),
                "h": nn.ModuleList(Block(config) for _ in range(config.layers)),
                "ln_f": nn.LayerNorm(config.width),
            }
        )
        for name in ("wte", "wpe"):
            nn.init.normal_(cast(nn.Embedding, self.transformer[name]).weight, std=INITIAL_STD)

    def forward(self, memory: Memory | None, tokens: Tensor) -> Tensor:
        """Tokens (B, T) int64 -> logits (B, T, V); ``memory`` is ignored."""
        parts: Any = self.transformer
        x = parts["drop"](parts["wte"](tokens) + parts["wpe"].weight[: tokens.shape[1]])  # (B, T, width)
        for block in parts["h"]:
            x = block(x)
        return F.linear(parts["ln_f"](x), parts["wte"].weight)  # tied, so no weight of its own


@dataclass(frozen=True)
class PromptScorer:
    """How likely texts are as prompts. `load` takes the folder of a trained `prompt-lm`."""

    model: PromptLM
    tokenizer: CaptionTokenizer

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PromptScorer:
        """Reads a checkpoint folder.

        Raises:
            CaptionerError: there is no `prompt-lm` in it.
        """
        from unprompt.captioners.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(folder, device)
        if not isinstance(checkpoint.model, PromptLM):
            raise CaptionerError(f"{folder} holds a {checkpoint.model.name}, no prompt-lm: name another folder")
        return cls(checkpoint.model, checkpoint.tokenizer)

    @torch.inference_mode()
    def log_likelihoods(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The mean log-probability a token of each text, natural logarithm.

        Returns:
            (N,), at most 0; the text's end counts as a token, and its length does not favour it.
        """
        rows = self.tokenizer.encode(texts, self.model.config.positions)
        out = np.empty(len(texts), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        device = next(self.model.parameters()).device
        for start in range(0, len(order), SCORED_TOGETHER):
            part = order[start : start + SCORED_TOGETHER]
            tokens = torch.from_numpy(self.tokenizer.padded([rows[i] for i in part])).to(device)
            out[part] = mean_log_likelihoods(self.model, tokens, self.tokenizer.pad).cpu().numpy()
        return out


def mean_log_likelihoods(model: PromptLM, tokens: Tensor, pad: int) -> Tensor:
    """(N, T) int64 tokens, filled with ``pad`` -> (N,) mean log-probability of those after the first."""
    logits = model(None, tokens[:, :-1])
    targets = tokens[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=pad, reduction="none")
    return -losses.view(targets.shape).sum(dim=1) / (targets != pad).sum(dim=1).clamp(min=1)
