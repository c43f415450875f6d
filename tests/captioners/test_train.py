"""The training loop: it learns, it splits what does not fit, and it survives being killed."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from slow_train import PICTURES, train

from fakes import FakeEncoder
from tiny_captioner import TinyGrid, colour_pairs, tiny_config, tiny_pictures
from unprompt.captioners.checkpoint import load_checkpoint
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.data.pairs import Pair
from unprompt.captioners.features import FeatureCache
from unprompt.captioners.interface import CaptionerError, CaptionModel, Memory
from unprompt.captioners.registry import build_model
from unprompt.captioners.train import corpus, obtain_tokenizer, portable, train_captioner
from unprompt.captioners.training.accumulate import Accumulator, resolve_precision
from unprompt.captioners.training.pictures import EncoderBackbone, Pictures, cache_pictures, embed_pictures
from unprompt.captioners.training.trainer import Trainer
from unprompt.errors import SourceError
from unprompt.types import Picture

SCRIPT = Path(__file__).with_name("slow_train.py")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return colour_pairs(tmp_path / "pictures")


def validation_losses(out: Path) -> list[float]:
    """Of each epoch, from the curve; the rows between hold none."""
    with (out / "loss.csv").open() as file:
        return [float(row["validation_loss"]) for row in csv.DictReader(file) if row["validation_loss"]]


@pytest.mark.parametrize("name", ["lstm", "transformer", "prompt-lm"])
def test_a_captioner_learns(name: str, pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config(name, "epochs=6", "batch=8", "patience=6")
    pictures = None
    if name != "prompt-lm":
        pairs, pictures = tiny_pictures(pairs, tmp_path / "cache", config)
    report = train_captioner(name, pairs, pictures, config, tmp_path / "out")
    losses = validation_losses(tmp_path / "out")
    assert report["best"] == pytest.approx(min(losses), rel=1e-5)
    assert min(losses) < 0.8 * losses[0]
    assert report["pairs"]["train"] == sum(pair.split == "train" for pair in pairs)
    assert report["parameters"] == sum(p.numel() for p in load_checkpoint(tmp_path / "out").model.parameters())


def test_the_checkpoint_is_that_of_the_best_epoch(pairs: list[Pair], tmp_path: Path) -> None:
    # The development split is of other words, so that learning the training split by heart makes it worse.
    strange = ["zebra quantum flux", "nine icy volcanoes", "why not, said Bob"]
    pairs = [replace(p, prompt=strange[i % 3] if p.split == "dev" else p.prompt) for i, p in enumerate(pairs)]
    config = tiny_config("transformer", "epochs=12", "patience=2", "optimizer.learning_rate=0.03")
    pairs, pictures = tiny_pictures(pairs, tmp_path / "cache", config)
    report = train_captioner("transformer", pairs, pictures, config, tmp_path / "out")
    losses = validation_losses(tmp_path / "out")
    assert len(losses) == report["epochs"] < 12, "patience never ran out"
    assert report["best_epoch"] == int(np.argmin(losses)) + 1 == report["epochs"] - 2
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.card.training["epoch"] == report["best_epoch"]
    dev = corpus(pairs, pictures, checkpoint.tokenizer, config, "dev")
    accumulator = Accumulator(checkpoint.model, checkpoint.tokenizer.pad, "cpu", "float32", 0)
    parts = [accumulator.evaluate(dev.load(batch)) for batch in dev.order(8, 0)]
    measured = sum(part.total for part in parts) / sum(part.tokens for part in parts)
    assert measured == pytest.approx(report["best"], rel=0.01)  # the weights were rounded to float16


def model_and_batch(pairs: list[Pair], cache: Path) -> tuple[CaptionModel, Any]:
    config = tiny_config("transformer", dropout=0.0)
    pairs, pictures = tiny_pictures(pairs, cache, config)
    tokenizer = obtain_tokenizer(pairs, config, cache)
    torch.manual_seed(0)
    shape = {"vocabulary": tokenizer.vocabulary, "grid_dim": 12, "grid_tokens": 4, "max_tokens": 16}
    split = corpus(pairs, pictures, tokenizer, config, "train")
    return build_model("transformer", config.model, **shape), split.load(split.order(24, 0)[0])


def gradients(model: CaptionModel, batch: Any, micro_batch: int) -> tuple[Any, list[Tensor]]:
    accumulator = Accumulator(model, 0, "cpu", "float32", micro_batch)
    loss = accumulator.backward(batch, seed=0)
    return loss, [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_a_split_batch_has_the_gradient_of_the_whole(pairs: list[Pair], tmp_path: Path) -> None:
    model, batch = model_and_batch(pairs, tmp_path)
    whole, expected = gradients(model, batch, 0)
    assert whole.tokens == int((batch.tokens[:, 1:] != 0).sum())
    for size in (1, 7):
        loss, found = gradients(model, batch, size)
        assert loss.total == pytest.approx(whole.total, rel=1e-5)
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


class Limited(CaptionModel):
    """Runs out of memory, as torch says it, when more than ``limit`` captions go through together."""

    name = "limited"

    def __init__(self, model: CaptionModel, limit: int, error: Exception) -> None:
        super().__init__(model.config)
        self.inner, self.limit, self.error = model, limit, error

    def forward(self, memory: Memory, tokens: Tensor) -> Tensor:
        if len(tokens) > self.limit:
            raise self.error
        out: Tensor = self.inner(memory, tokens)
        return out


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_what_does_not_fit_into_memory_is_halved(error: Exception, pairs: list[Pair], tmp_path: Path) -> None:
    model, batch = model_and_batch(pairs, tmp_path)
    whole, expected = gradients(model, batch, 0)
    accumulator = Accumulator(Limited(model, 5, error), 0, "cpu", "float32", 0)
    loss = accumulator.backward(batch, seed=0)
    assert accumulator.micro_batch <= 5
    assert loss.total == pytest.approx(whole.total, rel=1e-5)
    for parameter, theirs in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, theirs, atol=1e-6)
    with pytest.raises(CaptionerError, match="not even one caption fits"):
        Accumulator(Limited(model, 0, error), 0, "cpu", "float32", 0).backward(batch, seed=0)
    with pytest.raises(RuntimeError, match="another fault"):
        Accumulator(Limited(model, 0, RuntimeError("another fault")), 0, "cpu", "float32", 0).evaluate(batch)


def test_precision() -> None:
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_training_in_half_precision_learns_too(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("transformer", "epochs=4", "batch=8", "precision=bfloat16")
    pairs, pictures = tiny_pictures(pairs, tmp_path / "cache", config)
    train_captioner("transformer", pairs, pictures, config, tmp_path / "out")
    losses = validation_losses(tmp_path / "out")
    assert losses[-1] < losses[0]


def test_learning_rate_warms_up_and_falls(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("prompt-lm", "optimizer.warmup=4", "optimizer.final=0.1", "epochs=4")
    tokenizer = obtain_tokenizer(pairs, config, tmp_path)
    split = corpus(pairs, None, tokenizer, config, "train")
    model = build_model("prompt-lm", config.model, vocabulary=tokenizer.vocabulary, max_tokens=16)
    trainer = Trainer(model, split, split, config, tokenizer.pad, tmp_path, {})
    total = trainer.steps_an_epoch * 4
    rates = [trainer.learning_rate(step) for step in range(total + 1)]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.001)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `slow_train`, never interrupted: ``pictures``, ``cache`` and ``out``."""
    folder = tmp_path_factory.mktemp("once")
    train(folder / "pictures", folder / "out", folder / "cache")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_and_resumed_it_gives_the_same_curve_and_weights(once: Path, tmp_path: Path) -> None:
    pictures, cache = once / "pictures", once / "cache"
    chance = random.Random(5)
    resumed_at = []
    for attempt in range(2):
        out = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(pictures), str(out), str(cache)], stdout=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not (out / "resume" / "state.json").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.9))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=10) == -signal.SIGKILL, "the run ended before it was killed"
        resumed_at.append(len(validation_losses(out)) if (out / "loss.csv").exists() else 0)
        report = train(pictures, out, cache)
        assert report["steps"] == 5 * -(-report["pairs"]["train"] // 8)  # type: ignore[index]
        for name in ("loss.csv", "loss.png", "model.safetensors", "tokenizer.json", "config.json"):
            assert (out / name).read_bytes() == (once / "out" / name).read_bytes(), name
    assert len(validation_losses(once / "out")) == 5
    assert min(resumed_at) < 5


def test_a_finished_run_is_not_trained_again(once: Path) -> None:
    out = once / "out"
    first, before = json.loads((out / "report.json").read_text()), (out / "model.safetensors").stat().st_mtime_ns
    again = train(once / "pictures", out, once / "cache")
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert len(list((out / "resume").iterdir())) == 3
    assert sum(first["pairs"].values()) == PICTURES


def test_another_configuration_or_other_data_are_not_mixed_up(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("prompt-lm")
    train_captioner("prompt-lm", pairs, None, config, tmp_path / "out")
    with pytest.raises(CaptionerError, match="is of a run with another configuration: give another --out"):
        train_captioner("prompt-lm", pairs, None, tiny_config("prompt-lm", "seed=1"), tmp_path / "out")
    with pytest.raises(CaptionerError, match="is of a run with another data"):
        train_captioner("prompt-lm", pairs[:-1], None, config, tmp_path / "out")
    (tmp_path / "out" / "resume" / "state.json").write_text("{}")
    with pytest.raises(CaptionerError, match=r"cannot be resumed .*: delete it to begin again"):
        train_captioner("prompt-lm", pairs, None, config, tmp_path / "out")


def test_a_checkpoint_holds_no_paths_of_this_machine(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("prompt-lm", "epochs=1")
    train_captioner("prompt-lm", pairs, None, config, tmp_path / "out")
    again = tiny_config("prompt-lm", "epochs=1", f"tokenizer.file={tmp_path / 'out' / 'tokenizer.json'}")
    train_captioner("prompt-lm", pairs, None, again, tmp_path / "again")
    assert load_checkpoint(tmp_path / "again").card.training["configuration"]["tokenizer"]["file"] == "tokenizer.json"
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()
    assert portable(tiny_config("lstm", "model.language_model=/here/my-lm"))["model"]["language_model"] == "my-lm"


def test_views_of_training_pictures_alone_are_augmented(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("transformer", "data.views=2")
    grid = TinyGrid()
    pairs, cache, rows = cache_pictures(pairs, grid, tmp_path / "cache", config)
    train_rows = np.array([pair.split == "train" for pair in pairs])
    assert grid.encoded == len(pairs) + 2 * int(train_rows.sum())
    assert (rows[~train_rows] == rows[~train_rows][:, :1]).all()
    assert all(len(set(row)) == 3 for row in rows[train_rows].tolist())
    report = train_captioner("transformer", pairs, Pictures(cache, rows, "tiny"), config, tmp_path / "out")
    assert grid.encoded == len(pairs) + 2 * int(train_rows.sum()), "training ran the backbone again"
    assert report["steps"] > 0


def test_pictures_that_cannot_be_read_are_left_out(pairs: list[Pair], tmp_path: Path) -> None:
    assert pairs[0].picture is not None
    Path(pairs[0].picture.path).write_bytes(b"no picture")
    kept, cache, rows = cache_pictures(pairs, TinyGrid(), tmp_path / "cache", tiny_config("lstm"))
    assert kept == pairs[1:]
    assert len(rows) == len(kept)
    assert [skipped.reason for skipped in cache.skipped] == ["unreadable"]
    with pytest.raises(SourceError, match="none of 1 pictures can be read"):
        cache_pictures([Pair("x", Picture("none.png"), "train")], TinyGrid(), tmp_path / "c", tiny_config("lstm"))


def test_neighbours_reach_the_model(pairs: list[Pair], tmp_path: Path) -> None:
    config = tiny_config("transformer", "neighbours=3", "epochs=1")
    pairs, pictures = tiny_pictures(pairs, tmp_path / "cache", config)
    encoder = FakeEncoder()
    embeddings = embed_pictures(pairs, encoder, tmp_path / "cache")
    direct = EncoderBackbone(encoder).encode(np.stack([encoder.preprocess(image) for image in map(opened, pairs)]))
    assert np.allclose(embeddings, direct, atol=2e-3)
    again = encoder.images_encoded
    assert (embed_pictures(pairs, encoder, tmp_path / "cache") == embeddings).all()
    assert encoder.images_encoded == again
    neighbours = find_neighbours(pairs, embeddings, 3, encoder.encode_texts)
    told = Pictures(pictures.cache, pictures.rows, "tiny", neighbours, ("fake", encoder.fingerprint))
    train_captioner("transformer", pairs, told, config, tmp_path / "out")
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.model.config.neighbour_dim == 32
    assert (checkpoint.card.neighbours, checkpoint.card.encoder) == (3, "fake")


def opened(pair: Pair) -> Any:
    from PIL import Image

    assert pair.picture is not None
    return Image.open(pair.picture.path)


def test_the_cache_is_one_for_features_and_embeddings(pairs: list[Pair], tmp_path: Path) -> None:
    cache_pictures(pairs, TinyGrid(), tmp_path / "cache", tiny_config("lstm"))
    embed_pictures(pairs, FakeEncoder(), tmp_path / "cache")
    assert len(FeatureCache(tmp_path / "cache", TinyGrid())) == len(pairs)
    assert len(list((tmp_path / "cache").iterdir())) == 2
