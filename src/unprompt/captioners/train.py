"""Training a captioner, from pairs to a checkpoint folder; what it takes is computed once and cached."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unprompt.captioners.checkpoint import TOKENIZER, Card, save_checkpoint
from unprompt.captioners.config import TrainConfig
from unprompt.captioners.data.corpus import Corpus, Neighbours
from unprompt.captioners.data.pairs import Pair, file_numbers, pairs_fingerprint, split_counts
from unprompt.captioners.interface import CaptionModel
from unprompt.captioners.registry import build_model
from unprompt.captioners.tokenizer import CaptionTokenizer, load_tokenizer, train_bpe
from unprompt.captioners.training.pictures import Pictures, Progress, silent
from unprompt.captioners.training.trainer import Outcome, Trainer
from unprompt.index.files import write_durably

logger = logging.getLogger(__name__)

REPORT = "report.json"


def train_captioner(
    name: str,
    pairs: Sequence[Pair],
    pictures: Pictures | None,
    config: TrainConfig,
    out: Path,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Trains one captioner into a checkpoint folder, from where an earlier call was interrupted if one was.

    Args:
        name: a key of `registry.TRAINABLE`.
        pairs: N pairs of all splits; the test split is left alone.
        pictures: rows as in `pairs`; None for a language model.
        config: the run.
        out: the folder. It gets the checkpoint with the lowest validation loss, ``loss.csv``, ``loss.png``,
            ``report.json``, and ``resume`` with what a later call needs to go on.
        device: as torch names it.
        progress: see `Progress`.

    Returns:
        What is in ``report.json``.

    Raises:
        CaptionerError: the configuration does not fit, ``out`` holds another run, or memory does not suffice.
    """
    started = time.perf_counter()
    tokenizer = obtain_tokenizer(pairs, config, out)
    torch.manual_seed(config.seed)
    model = build_model(name, config.model, **_shape(tokenizer, pictures, config))
    facts = {"captioner": name, "configuration": config.to_dict(), "data": _fingerprint(pairs, pictures)}
    card = _card(name, pictures, config)
    train, dev = (corpus(pairs, pictures, tokenizer, config, split) for split in ("train", "dev"))

    def keep(validation_loss: float, epoch: int) -> None:
        outcome = {"validation_loss": validation_loss, "epoch": epoch, "pairs": split_counts(pairs)}
        training = {**facts, "configuration": portable(config), **outcome}
        save_checkpoint(out, Card(**{**asdict(card), "training": training}), model, tokenizer)

    trainer = Trainer(
        model,
        train,
        dev,
        config,
        tokenizer.pad,
        out,
        facts,
        device,
        keep=lambda state: keep(state.best, state.best_epoch + 1),
        progress=lambda done, total: progress("training", done, total),
    )
    return _report(out, model, trainer.fit(), facts, pairs, time.perf_counter() - started)


def portable(config: TrainConfig) -> dict[str, Any]:
    """The configuration for a checkpoint that travels: of paths on this machine only the last part is kept."""
    values = config.to_dict()
    values["tokenizer"]["file"] = Path(config.tokenizer.file).name
    source = config.model.get("language_model")
    if isinstance(source, str):
        values["model"] = {**config.model, "language_model": Path(source).name}
    return values


def obtain_tokenizer(pairs: Sequence[Pair], config: TrainConfig, out: Path) -> CaptionTokenizer:
    """The tokenizer that the configuration names, or of this run's earlier call, or a new BPE of the training split."""
    if config.tokenizer.file:
        return load_tokenizer(Path(config.tokenizer.file).expanduser())
    if (out / TOKENIZER).is_file():
        return load_tokenizer(out / TOKENIZER)
    tokenizer = train_bpe((pair.prompt for pair in pairs if pair.split == "train"), config.tokenizer.vocabulary)
    tokenizer.save(out / TOKENIZER)
    return tokenizer


def corpus(
    pairs: Sequence[Pair], pictures: Pictures | None, tokenizer: CaptionTokenizer, config: TrainConfig, split: str
) -> Corpus:
    """One split as the trainer reads it; only that of training is shuffled, augmented and thinned."""
    rows = np.array([i for i, pair in enumerate(pairs) if pair.split == split], dtype=np.int64)
    chosen = [pairs[i] for i in rows]
    tokens = tokenizer.encode([pair.prompt for pair in chosen], config.data.max_tokens)
    training = split == "train"
    files = file_numbers(chosen) if training and config.data.one_of_file else None
    if pictures is None:
        return Corpus(tokens, tokenizer.pad, config.seed, files=files, shuffled=training)
    neighbours = pictures.neighbours
    if neighbours is not None:
        neighbours = Neighbours(neighbours.embeddings, neighbours.nearest[rows])
    features = pictures.rows[rows]
    return Corpus(tokens, tokenizer.pad, config.seed, pictures.cache, features, neighbours, files, training)


def _shape(tokenizer: CaptionTokenizer, pictures: Pictures | None, config: TrainConfig) -> dict[str, int]:
    shape = {"vocabulary": tokenizer.vocabulary, "max_tokens": config.data.max_tokens}
    if pictures is None:
        return shape
    _, tokens, dim = pictures.cache.read(pictures.rows[:1, 0]).shape
    neighbours = pictures.neighbours
    width = 0 if neighbours is None else neighbours.embeddings.shape[1]
    return {**shape, "grid_dim": dim, "grid_tokens": tokens, "neighbour_dim": width}


def _card(name: str, pictures: Pictures | None, config: TrainConfig) -> Card:
    if pictures is None:
        return Card(name, text=config.data.text)
    told = 0 if pictures.neighbours is None else pictures.neighbours.nearest.shape[1]
    fingerprint = pictures.cache.backbone.fingerprint
    encoder, encoder_fingerprint = pictures.encoder
    return Card(
        name,
        backbone=pictures.backbone,
        backbone_fingerprint=fingerprint,
        neighbours=told,
        encoder=encoder,
        encoder_fingerprint=encoder_fingerprint,
        text=config.data.text,
    )


def _fingerprint(pairs: Sequence[Pair], pictures: Pictures | None) -> str:
    told = "" if pictures is None or pictures.neighbours is None else f"+{pictures.neighbours.fingerprint}"
    return pairs_fingerprint(pairs) + told


def _report(
    out: Path, model: CaptionModel, outcome: Outcome, facts: dict[str, Any], pairs: Sequence[Pair], seconds: float
) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.trainable_parameters())
    report = {
        **facts,
        **asdict(outcome),
        "pairs": split_counts(pairs),
        "parameters": parameters,
        "trained_parameters": trained,
        "seconds": round(seconds, 1),
    }
    text = json.dumps(report, indent=1) + "\n"
    write_durably(out / REPORT, lambda file: file.write(text.encode()))
    return report
