"""A small network that predicts the embedding of a prompt with a term appended, from embeddings that are known.

Search needs to know what 100,000 terms would do to a prompt, and can encode a dozen. How a prompt's embedding moves
when a term is appended depends little on the picture that is searched for, so it can be learnt beforehand: from the
prompt's embedding, the term's own, and the term's at the end of a fixed prompt (`unprompt.index.contexts`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.errors import EncoderError
from unprompt.search.weighted_mean import relative_lengths

HIDDEN = 384

PROMPT_LENGTH = 100.0
"""Characters: a usual length, which others are taken relative to."""


class ExtensionNet(nn.Module):
    """(prompts, terms) -> embeddings of the prompts with the terms appended.

    The mean of both embeddings, weighted by the texts' lengths, is corrected by a network of two hidden layers; in the
    first, terms and prompts meet as sums gated by the prompt. So the terms' share of it is computed once.

    Args:
        dim: D, of the embeddings.
        hidden: H, the width of both layers.
    """

    means: Tensor
    scales: Tensor
    probe: Tensor

    def __init__(self, dim: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.term = nn.Linear(2 * dim + 2, hidden)
        self.prompt = nn.Linear(dim + 2, hidden)
        self.gate = nn.Linear(dim + 2, hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, dim)
        for layer in (self.gate, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("means", torch.zeros(2, dim))  # of the terms' embeddings, alone and in context
        self.register_buffer("scales", torch.ones(2))  # their root mean square distance from these
        self.register_buffer("probe", torch.zeros(dim))  # `unprompt.index.contexts.CONTEXT` as the encoder embeds it

    def forward(
        self, embeddings: Tensor, contexts: Tensor, lengths: Tensor, prompts: Tensor, prompt_lengths: Tensor
    ) -> Tensor:
        """Predicts (N, D) embeddings, rows of norm 1.

        Args:
            embeddings: (N, D), of the terms alone.
            contexts: (N, D), of the terms at the end of `unprompt.index.contexts.CONTEXT`.
            lengths: (N,) float32, the terms' in characters.
            prompts: (N, D), the embeddings of the prompts that they are appended to, of norm 1.
            prompt_lengths: (N,) float32, these prompts' in characters.
        """
        shift = self.correction(embeddings, contexts, lengths, prompts, prompt_lengths)
        return extended(embeddings, prompts, relative_lengths(lengths, prompt_lengths), shift)

    def correction(
        self, embeddings: Tensor, contexts: Tensor, lengths: Tensor, prompts: Tensor, prompt_lengths: Tensor
    ) -> Tensor:
        """(N, D), by what the means weighted by length are corrected; takes what `forward` does."""
        context = self.context(prompts, prompt_lengths)
        return self.shift(self.term_part(embeddings, contexts, lengths), self.prompt(context), 1 + self.gate(context))

    def term_part(self, embeddings: Tensor, contexts: Tensor, lengths: Tensor) -> Tensor:
        """(N, H), what the first layer makes of terms whatever the prompt."""
        size = embeddings.shape[1] ** 0.5
        statistics = zip((embeddings, contexts), self.means, self.scales, strict=True)
        alone, within = ((each - mean) * (size / scale) for each, mean, scale in statistics)
        facts = torch.stack([torch.log1p(lengths) / 3, lengths / 20], dim=1)
        out: Tensor = self.term(torch.cat([alone, within, facts], dim=1))
        return out

    def context(self, prompts: Tensor, lengths: Tensor) -> Tensor:
        """(N, D + 2), what the network reads of prompts."""
        relative = lengths / PROMPT_LENGTH
        return torch.cat([prompts * prompts.shape[1] ** 0.5, torch.stack([relative.log(), 1 / relative], dim=1)], dim=1)

    def shift(self, terms: Tensor, prompt: Tensor, gate: Tensor) -> Tensor:
        """(N, D), the correction, from both parts of the first layer (N, H) or (H,)."""
        return shifts(terms, prompt, gate, self.mix.weight, self.mix.bias, self.out.weight, self.out.bias)


def load_net(path: Path) -> ExtensionNet:
    """Reads a network for inference.

    Raises:
        EncoderError: the file is no such network.
    """
    try:
        weights = {name: tensor.float() for name, tensor in load_file(path).items()}
        with torch.device("meta"):
            net = ExtensionNet(weights["out.bias"].shape[0], weights["mix.bias"].shape[0])
        net.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise EncoderError(f"{path} does not hold a network that extends prompts ({detail}); install anew") from None
    return net.eval().requires_grad_(False)


def shifts(
    terms: Tensor, prompt: Tensor, gate: Tensor, mix: Tensor, mix_bias: Tensor, out: Tensor, out_bias: Tensor
) -> Tensor:
    """`ExtensionNet.shift` of its weights, in words that TorchScript knows."""
    hidden = F.gelu(terms + prompt) * gate
    hidden = F.gelu(F.linear(hidden, mix, mix_bias))
    return F.linear(hidden, out, out_bias)


def extended(embeddings: Tensor, prompts: Tensor, weights: Tensor, shift: Tensor) -> Tensor:
    """(N, D) of norm 1: the weighted means of prompts (N, D) or (D,) and terms, corrected."""
    means = F.normalize(prompts + weights[:, None] * embeddings, dim=1)
    return F.normalize(means + weights[:, None] * shift, dim=1)
