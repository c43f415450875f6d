"""`ofa`: asks an official OFA model "what does the image describe?".

Names are folders with the official files (see `checkpoint`), hub repositories such as ``OFA-Sys/ofa-base``, which are
fetched as `unprompt.encoders.hub` says, or the sizes: tiny, medium, base, large, huge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unprompt.captioners.decode import DecodeConfig, Hypothesis
from unprompt.captioners.decode_beam import beam_search
from unprompt.captioners.interface import CaptionerError, Decodable, State
from unprompt.captioners.neighbours import NeighbourDecoder, NeighbourMixture
from unprompt.captioners.ofa.checkpoint import WEIGHTS, Task, load_model, read_config, read_task
from unprompt.captioners.ofa.config import SIZES
from unprompt.captioners.ofa.encoder import Encoding
from unprompt.captioners.ofa.model import OfaModel
from unprompt.captioners.ofa.tokenizer import FILES as TOKENIZER_FILES
from unprompt.captioners.ofa.tokenizer import OfaTokenizer
from unprompt.encoders.hub import local_folder, obtain
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.types import Candidate, Part

FILES = (("config.json",), WEIGHTS, *((name,) for name in TOKENIZER_FILES))
EXTRAS = ("configuration.json",)
REPOSITORIES = {size: f"OFA-Sys/ofa-{size}" for size in SIZES}

ROWS = 20
"""Captions that are written together, all beams counted: each keeps 90 MB in the large model, of 900 cells."""


class OfaCaptioner:
    """A `Captioner`: load it with `load`. A candidate's score is its mean log-probability a token, at most 0."""

    def __init__(
        self,
        name: str,
        model: OfaModel,
        tokenizer: OfaTokenizer,
        task: Task,
        *,
        mixture: NeighbourMixture | None = None,
        no_repeat_ngram: int = 3,
    ) -> None:
        """Takes loaded parts.

        Args:
            name: the source of its candidates.
            model: in inference mode, on its device.
            tokenizer: with as many tokens as the model.
            task: how the model was trained to be asked.
            mixture: how much neighbours say where they are told; by default as `NeighbourMixture` has it.
            no_repeat_ngram: see `DecodeConfig`; 3 is OFA's own.

        Raises:
            CaptionerError: tokenizer and model do not fit.

        """
        if len(tokenizer) != model.config.vocab_size:
            raise CaptionerError(
                f"{name} has {model.config.vocab_size} tokens, its vocabulary with codes and bins {len(tokenizer)}: "
                "give the vocab.json that came with the model"
            )
        self.name, self.model, self.tokenizer, self.task = name, model, tokenizer, task
        self.mixture, self.no_repeat_ngram = mixture or NeighbourMixture(), no_repeat_ngram
        self.preprocess = Preprocessing((task.size, task.size), resize="squash", mean=task.mean, std=task.std)
        self._device = next(model.parameters()).device

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int = 5,
        max_tokens: int = 17,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """See `unprompt.types.Captioner`; ``max_tokens`` counts the end-of-text, and the defaults are OFA's own.

        Raises:
            CaptionerError: a number is out of range, or there are neighbours for another number of pictures.

        """
        if neighbours is not None and len(neighbours) != len(images):
            raise CaptionerError(f"{len(neighbours)} lists of neighbours for {len(images)} pictures: give one for each")
        longest = self.model.config.max_position_embeddings
        if max_tokens > longest:
            raise CaptionerError(f"max_tokens is {max_tokens}: OFA reads {longest} at most")
        config = DecodeConfig(
            self.tokenizer.bos,
            self.tokenizer.eos,
            forbidden=tuple(sorted((self.tokenizer.bos, self.tokenizer.pad))),
            max_tokens=max_tokens,
            min_tokens=1,
            num_beams=num_beams,
            no_repeat_ngram=self.no_repeat_ngram,
        )
        found: list[list[Candidate]] = []
        batch = max(1, ROWS // max(1, num_beams))
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            decoder, state = self._start(images[part], None if neighbours is None else neighbours[part])
            found += [self._candidates(hypotheses) for hypotheses in beam_search(decoder, state, config)]
        return found

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> Encoding:
        """What the model sees of N pictures and its question."""
        question = torch.tensor([self.tokenizer.encode(self.task.question)], device=self._device)
        return self.model.encode(self.pictures(images), question)

    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """N pictures of any size, squashed to the model's and normalised: (N, 3, S, S) float32 on its device."""
        pixels = torch.from_numpy(np.stack([self.preprocess(image) for image in images])).to(self._device)
        mean, std = (torch.tensor(values, device=self._device) for values in (self.task.mean, self.task.std))
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _start(
        self, images: Sequence[Image.Image], neighbours: Sequence[Sequence[str]] | None
    ) -> tuple[Decodable, State]:
        state = self.model.start(self.encode(images))
        if neighbours is None:
            return self.model, state
        decoder = NeighbourDecoder(self.model, self.mixture)
        # OFA's answers were trained with a space before the first word.
        told = [[self.tokenizer.encode(f" {text.strip()}") for text in texts] for texts in neighbours]
        return decoder, decoder.start(state, told)

    def _candidates(self, hypotheses: Sequence[Hypothesis]) -> list[Candidate]:
        """Distinct, non-empty captions: of token sequences that spell one text the best is kept."""
        scores: dict[str, float] = {}
        texts = self.tokenizer.decode([each.tokens for each in hypotheses])
        for text, each in zip(texts, hypotheses, strict=True):
            if text:
                scores.setdefault(text, each.score)
        source = f"captioner:{self.name}"
        return [Candidate(text, score, (Part(text, source, "caption", score),)) for text, score in scores.items()]


def load(name: str, device: str = "cpu", *, size: int | None = None, **options: Any) -> OfaCaptioner:
    """Loads an OFA with its tokenizer, in float32.

    Args:
        name: a folder, a hub repository, or a size.
        device: "cpu", "cuda", "cuda:1" or "mps".
        size: the pictures' side in pixels where it shall not be what the folder or the model's size says.
        options: of `OfaCaptioner`.

    Raises:
        CaptionerError: the folder holds no such model, or its files do not fit together.
        EncoderError: the name is none, or the hub is needed and cannot be reached.

    """
    local = local_folder(name)
    folder = local or obtain(REPOSITORIES.get(name, name), FILES, extras=EXTRAS)
    config = read_config(folder)
    task = read_task(folder, config, size)
    tokenizer = OfaTokenizer(folder)
    model = load_model(folder, config).to(device)
    return OfaCaptioner(f"ofa:{local.name if local else name}", model, tokenizer, task, **options)


CAPTIONERS: Mapping[str, Any] = {"ofa": load}
"""What this module brings to a registry: prefix -> loader of the rest of the name."""
