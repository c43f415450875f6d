"""The whole OFA model, for answering questions about pictures; inference only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unprompt.captioners.interface import State, reorder
from unprompt.captioners.ofa.config import OfaConfig
from unprompt.captioners.ofa.decoder import Decoder
from unprompt.captioners.ofa.encoder import Encoder, Encoding


class OfaModel(nn.Module):
    """OFA, Wang et al., "OFA: Unifying architectures, tasks, and modalities" (2022): `unprompt`'s `Decodable`.

    Parameters and buffers have the names and shapes of the official checkpoints. There is no dropout: a model built
    as ``OfaModel(config)`` is random, and trained elsewhere.
    """

    def __init__(self, config: OfaConfig) -> None:
        super().__init__()
        self.config = config
        embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config, embed_tokens)
        self.decoder = Decoder(config, embed_tokens)

    def encode(self, pictures: Tensor, questions: Tensor) -> Encoding:
        """(N, 3, H, W) normalised pictures and (N or 1, T) int64 questions -> what answers are written from."""
        encoding: Encoding = self.encoder(pictures, questions)
        return encoding

    def forward(self, pictures: Tensor, questions: Tensor, tokens: Tensor) -> Tensor:
        """Reads whole answers (N, T) int64, beginning-of-text first: the logits of each next token, (N, T, V)."""
        fixed = self.decoder.read(self.encode(pictures, questions))
        logits: Tensor = self.decoder(tokens, fixed, self.decoder.empty(len(tokens)))[0]
        return logits

    def start(self, encoding: Encoding) -> State:
        """The state of N empty answers; the first token to `step` with is the beginning-of-text."""
        rows = len(encoding.states)
        pictures = torch.arange(rows, device=encoding.states.device)
        return State(self.decoder.read(encoding), self.decoder.empty(rows), pictures)

    def step(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        """Reads one token (N,) int64 a row: the logits of the next (N, V), and the state after it."""
        logits, cache = self.decoder(tokens[:, None], state.fixed, state.moving)
        return logits[:, 0], state._replace(moving=cache)

    def reorder(self, state: State, rows: Tensor) -> State:
        """The state whose row i is row ``rows[i]`` of the old one."""
        return reorder(state, rows)
