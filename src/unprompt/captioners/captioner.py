"""A trained model as a `Captioner`: backbone, model, tokenizer and beam search; told neighbours if trained to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unprompt.captioners.checkpoint import Checkpoint, load_checkpoint
from unprompt.captioners.data.text import plain_words
from unprompt.captioners.decode import DecodeConfig, Hypothesis
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.features import Backbone
from unprompt.captioners.grid import load_grid
from unprompt.captioners.interface import CaptionerError, Memory
from unprompt.captioners.neighbours import NeighbourDecoder, NeighbourMixture
from unprompt.captioners.texts import LazyTexts, Texts
from unprompt.types import Candidate, Part, Pixels

BATCH = 16
"""Pictures that are captioned together."""

MIXED = 8
"""Neighbours whose prompts are mixed into what is written."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How captions are written, besides what a call says; see `DecodeConfig`.

    `neighbour_share` is how much of each next token neighbours' prompts decide, see `NeighbourMixture`; None is the
    checkpoint's own.
    """

    neighbour_share: float | None = None
    no_repeat_ngram: int = 3
    max_run: int = 2
    length_penalty: float = 1.0
    num_groups: int = 1
    diversity: float = 0.5


class TrainedCaptioner:
    """A `Captioner` around a checkpoint. `load` makes one from a folder.

    Args:
        name: what its captions name as their source.
        checkpoint: see there.
        backbone: makes the grids, and must be the one the model was trained on.
        encode_texts: embeds neighbours' prompts; needed by a captioner that is told neighbours, once it is told any.
        writing: the rules of decoding.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        backbone: Backbone,
        encode_texts: Texts | None = None,
        writing: Writing | None = None,
    ) -> None:
        """Checks that the parts fit.

        Raises:
            CaptionerError: the backbone is not the one of training.
        """
        card = checkpoint.card
        if backbone.fingerprint != card.backbone_fingerprint:
            raise CaptionerError(
                f"captioner {name} was trained on another {card.backbone} ({card.backbone_fingerprint[:12]}..., not "
                f"{backbone.fingerprint[:12]}...): install that backbone or train again"
            )
        self.name = name
        self.card = card
        self.model = checkpoint.model
        self.tokenizer = checkpoint.tokenizer
        self.writing = writing or Writing()
        share = self.writing.neighbour_share
        self.mixture = NeighbourMixture(card.neighbour_share if share is None else share)
        self._backbone = backbone
        self._encode_texts = encode_texts

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", writing: Writing | None = None) -> TrainedCaptioner:
        """Loads a checkpoint folder with its backbone; the text encoder is loaded when neighbours are first told.

        Raises:
            CaptionerError: the folder holds no captioner, or its backbone cannot be had.
        """
        checkpoint = load_checkpoint(folder, device)
        card = checkpoint.card
        if not card.backbone:
            raise CaptionerError(f"{folder} holds a {card.captioner}, which sees no pictures: name a captioner")
        texts = LazyTexts(card.encoder, card.encoder_fingerprint, device) if card.neighbours else None
        return cls(folder.name, checkpoint, load_grid(card.backbone, device), texts, writing)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int = 5,
        max_tokens: int = 0,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """Writes prompts for N pictures.

        Args:
            images: pictures.
            num_beams: captions kept while writing, and returned at most.
            max_tokens: longest caption; 0, or more than it was trained to write, is as long as that.
            neighbours: for each picture the prompts of those nearest to it, nearest first. The first few are attended
                to by a captioner that was trained to, and mixed into what it writes by its `neighbour_share`.

        Returns:
            For each picture its candidates, best first. A candidate's score is the mean log-probability of its
            tokens, which is at most 0: an encoder's cosine is for the engine to add.

        Raises:
            CaptionerError: a number is out of range, or there are neighbours for another number of pictures.
        """
        if neighbours is not None and len(neighbours) != len(images):
            raise CaptionerError(f"{len(neighbours)} lists of neighbours for {len(images)} pictures: give one for each")
        found: list[list[Candidate]] = []
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            told = None if neighbours is None else neighbours[part]
            found += self.caption_grids(self.grids(images[part]), num_beams, max_tokens, told)
        return found

    def caption_grids(
        self,
        grids: torch.Tensor,
        num_beams: int = 5,
        max_tokens: int = 0,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """Writes prompts for pictures that the backbone has seen: (N, M, C), all at once; see `caption`."""
        config = self._decode_config(num_beams, max_tokens)
        told = None if neighbours is None else [self._as_trained(prompts) for prompts in neighbours]
        return [self._candidates(hypotheses) for hypotheses in self.write(self.memory(grids, told), config, told)]

    def _as_trained(self, prompts: Sequence[str]) -> list[str]:
        """Prompts as training saw them."""
        return [plain_words(prompt) for prompt in prompts] if self.card.text == "plain" else list(prompts)

    def preprocess(self, image: Image.Image) -> Pixels:
        """The picture as the backbone sees it: (H, W, 3) uint8."""
        return self._backbone.preprocess(image)

    def grids(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """The backbone's tokens of N pictures: (N, M, C) float32."""
        pixels = np.stack([self.preprocess(image) for image in images])
        return torch.from_numpy(self._backbone.encode(pixels)).to(self.device)

    def memory(self, grids: torch.Tensor, neighbours: Sequence[Sequence[str]] | None) -> Memory:
        """What captions of N pictures are written from."""
        k = self.card.neighbours
        if not k or neighbours is None or not any(neighbours):
            return Memory(grids)
        if self._encode_texts is None:
            raise CaptionerError(f"captioner {self.name} is told neighbours but has no text encoder: give it one")
        told = [list(prompts[:k]) for prompts in neighbours]
        embedded = self._encode_texts([prompt for prompts in told for prompt in prompts])  # (all, E)
        values = np.zeros((len(told), k, embedded.shape[1]), dtype=np.float32)
        mask = np.zeros((len(told), k), dtype=bool)
        at = 0
        for i, prompts in enumerate(told):
            values[i, : len(prompts)], mask[i, : len(prompts)] = embedded[at : at + len(prompts)], True
            at += len(prompts)
        return Memory(grids, torch.from_numpy(values).to(self.device), torch.from_numpy(mask).to(self.device))

    @torch.inference_mode()
    def write(
        self, memory: Memory, config: DecodeConfig, neighbours: Sequence[Sequence[str]] | None = None
    ) -> list[list[Hypothesis]]:
        """Beam search from a memory, for each picture its hypotheses; see `caption` for the neighbours."""
        state = self.model.start(memory)
        if not self.mixture.share or neighbours is None or not any(neighbours):
            return beam_search(self.model, state, config)
        told = [self.tokenizer.encode(prompts[:MIXED], self.model.config.max_tokens) for prompts in neighbours]
        decoder = NeighbourDecoder(self.model, self.mixture)
        return beam_search(decoder, decoder.start(state, told), config)

    def _decode_config(self, num_beams: int, max_tokens: int) -> DecodeConfig:
        if max_tokens < 0:
            raise CaptionerError(f"max_tokens is {max_tokens}: give 1 or more, or 0 for the longest")
        longest = self.model.config.max_tokens - 1  # the beginning is none of a caption's tokens
        tokens, rules = self.tokenizer, self.writing
        return DecodeConfig(
            tokens.begin,
            tokens.end,
            forbidden=tuple(sorted({tokens.pad, tokens.begin} - {tokens.end})),
            max_tokens=min(max_tokens or longest, longest),
            min_tokens=1,
            no_repeat_ngram=rules.no_repeat_ngram,
            max_run=rules.max_run,
            length_penalty=rules.length_penalty,
            num_beams=num_beams,
            num_groups=rules.num_groups,
            diversity=rules.diversity,
        )

    def _candidates(self, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
        """Distinct, non-empty captions: two token sequences may spell one text, and the better one is kept."""
        texts = self.tokenizer.decode([hypothesis.tokens for hypothesis in hypotheses])
        scores: dict[str, float] = {}
        for text, hypothesis in zip(texts, hypotheses, strict=True):
            if text:
                scores.setdefault(text, hypothesis.score)
        source = f"captioner:{self.name}"
        return [Candidate(text, score, (Part(text, source, "caption", score),)) for text, score in scores.items()]
