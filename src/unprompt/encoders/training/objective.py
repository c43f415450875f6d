"""The training objective of `starter`: a picture should find its texts among all texts, and lie near its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unprompt.encoders.training.data import Example

MOST_FRAGMENTS = 4


@dataclass(frozen=True, slots=True)
class Targets:
    """The texts a set of examples is trained towards, as rows of two banks of text embeddings.

    Attributes:
        prompts: (P, dim) the distinct training prompts; each one is every other's negative, so that the same subject
            by every other artist is always among them.
        fragments: (F, dim) the distinct fragments of the training prompts: artists and subjects alone, comma pieces.
        prompt_of: (N,) long, each example's row of `prompts`; -1 where the prompt is not a training prompt.
        fragments_of: (N, MOST_FRAGMENTS) long, rows of `fragments`, repeated to fill the width.
        has_fragments: (N,) bool.

    """

    prompts: Tensor
    fragments: Tensor
    prompt_of: Tensor
    fragments_of: Tensor
    has_fragments: Tensor


def bank(examples: Sequence[Example], splits: Sequence[str]) -> tuple[list[str], list[str]]:
    """The distinct prompts and fragments of the pictures that are trained on, sorted."""
    chosen = [e for e in examples if e.split in splits]
    return sorted({e.prompt for e in chosen}), sorted({f for e in chosen for f in e.fragments()})


def make_targets(
    examples: Sequence[Example], prompts: list[str], fragments: list[str], embeddings: tuple[Tensor, Tensor]
) -> Targets:
    """Looks every example's texts up in the banks.

    Args:
        examples: N examples of any split.
        prompts: the distinct training prompts.
        fragments: the distinct training fragments.
        embeddings: of both, (P, dim) and (F, dim).

    """
    prompt_rows = {text: row for row, text in enumerate(prompts)}
    fragment_rows = {text: row for row, text in enumerate(fragments)}
    found = [[fragment_rows[f] for f in e.fragments() if f in fragment_rows] for e in examples]
    filled = [(rows * MOST_FRAGMENTS)[:MOST_FRAGMENTS] or [0] * MOST_FRAGMENTS for rows in found]
    return Targets(
        prompts=embeddings[0],
        fragments=embeddings[1],
        prompt_of=torch.tensor([prompt_rows.get(e.prompt, -1) for e in examples]),
        fragments_of=torch.tensor(filled),
        has_fragments=torch.tensor([bool(rows) for rows in found]),
    )


class PromptLoss(nn.Module):
    """InfoNCE against all training prompts, the same against all fragments, and one minus the cosine with the prompt.

    Both temperatures are learnt, as in CLIP (Radford et al. 2021), and bounded below.
    """

    def __init__(
        self, targets: Targets, *, cosine: float = 0.3, fragment: float = 0.3, temperature: float = 0.03
    ) -> None:
        super().__init__()
        self.targets, self.cosine, self.fragment = targets, cosine, fragment
        self.log_temperatures = nn.Parameter(torch.full((2,), temperature).log())

    def forward(self, queries: Tensor, rows: Tensor) -> Tensor:
        """The mean loss of a batch.

        Args:
            queries: (B, dim) rows of norm 1.
            rows: (B,) which examples they are.

        """
        targets, temperatures = self.targets, self.log_temperatures.exp().clamp(min=0.01)
        true = targets.prompt_of[rows]  # (B,)
        contrast = F.cross_entropy(queries @ targets.prompts.T / temperatures[0], true)
        distance = 1 - (queries * targets.prompts[true]).sum(dim=1)  # (B,)
        log_p = F.log_softmax(queries @ targets.fragments.T / temperatures[1], dim=1)  # (B, F)
        pieces = log_p.gather(1, targets.fragments_of[rows]).mean(dim=1) * targets.has_fragments[rows]  # (B,)
        loss: Tensor = contrast + self.cosine * distance.mean() - self.fragment * pieces.mean()
        return loss
