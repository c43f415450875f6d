"""What embeds neighbours' prompts for a captioner that attends to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property

from unprompt.captioners.interface import CaptionerError
from unprompt.encoders.minilm import TOKENIZER_SHA256, WEIGHTS_SHA256
from unprompt.types import Embeddings

Texts = Callable[[Sequence[str]], Embeddings]

STARTER = "starter"
STARTER_TEXTS = hashlib.sha256(f"{WEIGHTS_SHA256}{TOKENIZER_SHA256}".encode()).hexdigest()
"""The fingerprint of `starter`'s text side: its picture side may be trained anew without a captioner's noticing."""


def texts_fingerprint(name: str, fingerprint: str) -> str:
    """The fingerprint of what embeds an encoder's texts, from the encoder's name and its own fingerprint."""
    return STARTER_TEXTS if name == STARTER else fingerprint


class LazyTexts:
    """The text side of an encoder that is loaded at the first call."""

    def __init__(self, name: str, fingerprint: str, device: str) -> None:
        self._name, self._fingerprint, self._device = name, fingerprint, device

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        """(N, E) embeddings.

        Raises:
            CaptionerError: the encoder is not the one of this fingerprint, see `texts_fingerprint`.
        """
        return self._encode(texts)

    @cached_property
    def _encode(self) -> Texts:
        if self._name == STARTER:
            self._check(STARTER_TEXTS)
            from unprompt.encoders.minilm import TextTower

            return TextTower.load(self._device).encode
        from unprompt.encoders.registry import load_encoder

        encoder = load_encoder(self._name, device=self._device)
        self._check(encoder.fingerprint)
        return encoder.encode_texts

    def _check(self, found: str) -> None:
        if found != self._fingerprint:
            raise CaptionerError(f"encoder {self._name} is not the one the captioner was trained with: train it again")
