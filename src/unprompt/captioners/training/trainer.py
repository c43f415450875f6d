"""The training loop: steps, validation after each epoch, early stopping, checkpoints that resume to the same curve."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unprompt.captioners.config import TrainConfig
from unprompt.captioners.curves import Row, save_csv, save_png
from unprompt.captioners.interface import CaptionModel
from unprompt.captioners.training.accumulate import Accumulator, Batch, resolve_precision
from unprompt.captioners.training.state import RunState, load_state, save_state

logger = logging.getLogger(__name__)

RESUME = "resume"
ROW_EVERY = 50
"""Steps between rows of the curve."""


class Batches(Protocol):
    """The captions of one split, a batch at a time. What it gives depends on its arguments alone."""

    def count(self, size: int) -> int:
        """How many batches of at most ``size`` captions an epoch has: the same each epoch."""
        ...

    def order(self, size: int, epoch: int) -> list[Any]:
        """The batches of an epoch, as `load` takes them."""
        ...

    def load(self, batch: Any) -> Batch:
        """Reads one batch."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        best: the lowest validation loss, nats a token.
        best_epoch: the epoch it was seen after, from 1.
        epochs: epochs done.
        steps: steps done.
        micro_batch: captions that went through the model together in the end; 0 for whole batches.
    """

    best: float
    best_epoch: int
    epochs: int
    steps: int
    micro_batch: int


class Trainer:
    """Trains one model.

    Args:
        model: with its first weights.
        train: the training split.
        dev: the development split, for early stopping.
        config: see there.
        pad: the padding token.
        folder: gets the curve, and the resumable checkpoint in ``resume``.
        run: what must be the same for a run to be resumed.
        device: as torch names it.
        keep: called when the validation loss is the lowest so far; saves the model.
        progress: called with (steps done, steps there are at most).
    """

    def __init__(
        self,
        model: CaptionModel,
        train: Batches,
        dev: Batches,
        config: TrainConfig,
        pad: int,
        folder: Path,
        run: Mapping[str, Any],
        device: str = "cpu",
        keep: Callable[[RunState], object] = lambda _: None,
        progress: Callable[[int, int], object] = lambda _, __: None,
    ) -> None:
        self.model = model.to(device)
        self.train, self.dev, self.config, self.folder, self.run = train, dev, config, folder, run
        self.keep, self.progress = keep, progress
        precision = resolve_precision(config.precision, device)
        self.accumulator = Accumulator(model, pad, device, precision, config.micro_batch)
        groups = model.parameter_groups(config.optimizer.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.optimizer.learning_rate, betas=(0.9, 0.98))
        self.steps_an_epoch = train.count(config.batch)
        self.state = RunState()

    def fit(self) -> Outcome:
        """Trains to the end, from where an earlier call was interrupted if one was.

        Raises:
            CaptionerError: the folder holds another run, or not even one caption fits into memory.
        """
        self._resume()
        state = self.state
        while not state.finished:
            self._epoch()
            self._validate()
            save_png(state.rows, self.folder, self.model.name)
            self._save()
        return Outcome(state.best, state.best_epoch + 1, state.epoch, state.step, self.accumulator.micro_batch)

    def _epoch(self) -> None:
        state, total = self.state, self.steps_an_epoch * self.config.epochs
        self.model.train()
        for batch in prefetched(self.train.load, self.train.order(self.config.batch, state.epoch)[state.batch :]):
            self._step(batch)
            state.batch += 1
            if state.step % ROW_EVERY == 0 and state.batch < self.steps_an_epoch:
                self._add_row(None)
            if state.step % self.config.save_every == 0:
                self._save()
            self.progress(state.step, total)

    def _step(self, batch: Batch) -> None:
        state, options = self.state, self.config.optimizer
        # Set from the step alone, so that nothing of a schedule needs saving.
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(state.step)
        loss = self.accumulator.backward(batch, self.config.seed * 1_000_003 + state.step, options.label_smoothing)
        torch.nn.utils.clip_grad_norm_(self.model.trainable_parameters(), options.clip)
        self.optimizer.step()
        self.model.zero_grad(set_to_none=True)
        state.step += 1
        state.loss += loss.total
        state.tokens += loss.tokens

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a half cosine down to its last share at the last step of the last epoch."""
        options, total = self.config.optimizer, self.steps_an_epoch * self.config.epochs
        if step < options.warmup:
            return options.learning_rate * (step + 1) / options.warmup
        done = min(1.0, (step - options.warmup) / max(1, total - options.warmup))
        share = options.final + (1 - options.final) * (1 + math.cos(math.pi * done)) / 2
        return options.learning_rate * share

    def _validate(self) -> None:
        state = self.state
        loss = self.validation_loss()
        self._add_row(loss)
        train_loss = state.rows[-1].train_loss
        logger.info("epoch %d: training loss %.4f, validation loss %.4f", state.epoch + 1, train_loss, loss)
        if loss < state.best:
            state.best, state.best_epoch = loss, state.epoch
            self.keep(state)
        state.epoch, state.batch = state.epoch + 1, 0
        patience_ran_out = state.epoch - 1 - state.best_epoch >= self.config.patience
        state.finished = state.epoch >= self.config.epochs or patience_ran_out

    def validation_loss(self) -> float:
        """Nats a token on the development split."""
        self.model.eval()
        losses = [self.accumulator.evaluate(self.dev.load(b)) for b in self.dev.order(self.config.batch, 0)]
        return math.fsum(loss.total for loss in losses) / max(1, sum(loss.tokens for loss in losses))

    def _add_row(self, validation_loss: float | None) -> None:
        state = self.state
        epoch = state.epoch + state.batch / self.steps_an_epoch
        train_loss = state.loss / max(1, state.tokens)
        rate = self.learning_rate(state.step - 1)
        state.rows.append(Row(state.step, epoch, train_loss, validation_loss, rate))
        state.loss, state.tokens = 0.0, 0

    def _save(self) -> None:
        self.state.micro_batch = self.accumulator.micro_batch
        save_state(self.folder / RESUME, self.state, self._weights(), self.optimizer.state_dict(), self.run)
        save_csv(self.state.rows, self.folder)

    def _weights(self) -> dict[str, Tensor]:
        """What training changes; frozen weights stay what they were when the model was made."""
        frozen = set(self.model.frozen_names())
        return {name: tensor for name, tensor in self.model.weights().items() if name not in frozen}

    def _resume(self) -> None:
        found = load_state(self.folder / RESUME, self.run)
        if found is None:
            return
        self.state, weights, optimizer = found
        self.model.load_weights({**self.model.weights(), **weights})
        self.optimizer.load_state_dict(optimizer)
        # What did not fit into memory before is not tried again, so that the same dropout is drawn.
        self.accumulator.micro_batch = self.state.micro_batch
        logger.info("resumed after step %d", self.state.step)


def prefetched(load: Callable[[Any], Batch], batches: Sequence[Any]) -> Iterator[Batch]:
    """Loads each batch in a thread while the one before it is in use."""
    with ThreadPoolExecutor(1, "unprompt-batches") as pool:
        ahead = [pool.submit(load, batch) for batch in batches[:1]]
        for batch in batches[1:]:
            ready = ahead.pop().result()
            ahead.append(pool.submit(load, batch))
            yield ready
        if ahead:
            yield ahead.pop().result()
