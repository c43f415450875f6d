"""Gradients of a batch of any size: it is split, and split again when memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from unprompt.captioners.interface import CaptionerError, CaptionModel, Memory, predicted, shifted_loss

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """B captions and what they are written from; a language model has no memory."""

    memory: Memory | None
    tokens: Tensor
    """(B, T) int64."""

    def parts(self, size: int) -> Iterator[Batch]:
        """The batch in parts of at most ``size`` captions."""
        for start in range(0, len(self.tokens), size):
            rows = slice(start, start + size)
            yield Batch(None if self.memory is None else self.memory.select(rows), self.tokens[rows])

    def to(self, device: str) -> Batch:
        """The batch on another device."""
        return Batch(None if self.memory is None else self.memory.to(device), self.tokens.to(device))


class Loss(NamedTuple):
    """The summed negative log-likelihood of some captions, in nats, and how many tokens it counts."""

    total: float
    tokens: int


class Accumulator:
    """Runs batches through a model, a micro-batch at a time.

    Attributes:
        micro_batch: captions that go through together; halved when memory runs out, and kept so.
    """

    def __init__(self, model: CaptionModel, pad: int, device: str, precision: str, micro_batch: int) -> None:
        self.model = model
        self.pad = pad
        self.device = device
        self.precision = precision
        self.micro_batch = micro_batch

    def backward(self, batch: Batch, seed: int, label_smoothing: float = 0.0) -> Loss:
        """Adds the gradient of the batch's mean loss a token to that of the parameters, which must be zero.

        Args:
            batch: any number of captions.
            seed: of dropout.
            label_smoothing: see `shifted_loss`.

        Returns:
            The loss, smoothed where that was asked.
        """
        count = predicted(batch.tokens, self.pad)

        def one(part: Batch) -> float:
            loss = self._loss(part, label_smoothing)
            torch.autograd.backward(loss / count)
            return loss.item()

        def start() -> None:
            self.model.zero_grad(set_to_none=True)
            torch.manual_seed(seed)  # so that a resumed run drops the same units

        return Loss(self._in_parts(batch, one, start), count)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Loss:
        """The loss of a batch, without smoothing or gradients."""
        total = self._in_parts(batch, lambda part: self._loss(part, 0.0).item(), lambda: None)
        return Loss(total, predicted(batch.tokens, self.pad))

    def _loss(self, part: Batch, label_smoothing: float) -> Tensor:
        part = part.to(self.device)
        with self._autocast():
            logits = self.model(part.memory, part.tokens[:, :-1])
        return shifted_loss(logits, part.tokens, self.pad, reduction="sum", label_smoothing=label_smoothing)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)

    def _in_parts(self, batch: Batch, one: Callable[[Batch], float], start: Callable[[], None]) -> float:
        while True:
            start()
            try:
                return sum(one(part) for part in batch.parts(self.micro_batch or len(batch.tokens)))
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _is_out_of_memory(error):
                    raise
                self._halve(len(batch.tokens))

    def _halve(self, batch: int) -> None:
        size = min(self.micro_batch or batch, batch)
        if size == 1:
            raise CaptionerError(f"not even one caption fits in the memory of {self.device}: make the model smaller")
        self.micro_batch = size // 2
        logger.warning("out of memory with %d captions at a time: going on with %d", size, self.micro_batch)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def resolve_precision(precision: str, device: str) -> str:
    """What "auto" means on a device: bfloat16 on a GPU that computes in it, else float32."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU torch raises a plain RuntimeError with these words.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
