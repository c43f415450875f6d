from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from unprompt.search.extension_net import ExtensionNet, load_net
from unprompt.search.train_extension_net import (
    FORMAT,
    Examples,
    TermTable,
    TrainOptions,
    predict,
    save_net,
    train,
    untrained,
)

DIM, TERMS, PROMPTS, EACH = 16, 300, 60, 60
OPTIONS = TrainOptions(hidden=32, epochs=8, batch=128, rate=4e-3)


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def table() -> TermTable:
    rng = np.random.default_rng(0)
    embeddings, contexts = (unit(rng.normal(size=(TERMS, DIM)) + 0.5) for _ in range(2))
    lengths = rng.integers(3, 40, TERMS).astype(np.float32)
    return TermTable(embeddings, contexts.astype(np.float16), lengths, unit(rng.normal(size=DIM)))


def examples_of(table: TermTable, seed: int, prompts: int = PROMPTS) -> Examples:
    """A world in which what a term does to a prompt can be told from its embedding in context."""
    rng = np.random.default_rng(seed)
    own = unit(rng.normal(size=(prompts, DIM)))
    lengths = rng.integers(20, 250, prompts).astype(np.float32)
    owners, terms = np.repeat(np.arange(prompts), EACH), rng.integers(0, TERMS, prompts * EACH)
    weights = (2 * (table.lengths[terms] + 4) / (lengths[owners] + 4)).clip(0.05, 1.5)[:, None]
    directions = np.random.default_rng(99).normal(size=(DIM, DIM)) / DIM**0.5
    shifts = 0.5 * table.embeddings[terms] + table.contexts[terms].astype(np.float32) @ directions
    embeddings = unit(own[owners] + weights * shifts)
    return Examples(own, lengths, unit(rng.normal(size=(prompts, DIM))), owners, terms, embeddings.astype(np.float16))


def error(net: ExtensionNet, table: TermTable, examples: Examples) -> float:
    return float(np.square(predict(net, table, examples) - examples.embeddings).sum(axis=1).mean())


def test_training_beats_the_weighted_mean_on_prompts_that_it_has_not_seen(table: TermTable) -> None:
    held_out = examples_of(table, seed=2, prompts=10)
    losses: list[float] = []
    net = train(table, examples_of(table, seed=1), OPTIONS, lambda epoch, loss, net: losses.append(loss))
    assert len(losses) == OPTIONS.epochs
    assert losses[-1] < losses[0] / 2, losses
    assert error(net, table, held_out) < error(untrained(table, OPTIONS), table, held_out) / 2


def test_what_counts_more_towards_the_picture_is_learnt_better_there(table: TermTable) -> None:
    query = unit(np.random.default_rng(5).normal(size=DIM))
    learnt, held_out = (replace_queries(examples_of(table, seed), query) for seed in (1, 2))

    def error_along(towards: float) -> float:
        net = train(table, learnt, replace(OPTIONS, towards=towards, epochs=2))
        errors = predict(net, table, held_out) - held_out.embeddings.astype(np.float32)
        return float(np.square(errors @ query).mean())

    assert error_along(20.0) < error_along(0.0)


def replace_queries(examples: Examples, query: NDArray[np.float32]) -> Examples:
    return replace(examples, queries=np.tile(query, (len(examples.prompts), 1)))


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(table: TermTable) -> None:
    learnt, short = examples_of(table, seed=1, prompts=10), replace(OPTIONS, epochs=1)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(count)  # what others draw changes nothing
            found.append(train(table, learnt, short).state_dict())
    finally:
        torch.set_num_threads(threads)
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
    other = train(table, learnt, replace(short, seed=1)).state_dict()
    assert not torch.equal(other["mix.weight"], found[0]["mix.weight"])


def test_training_leaves_the_random_numbers_of_others_alone(table: TermTable) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(table, examples_of(table, seed=1, prompts=2), replace(OPTIONS, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_network_knows_the_terms_statistics_and_the_probe(table: TermTable) -> None:
    net = untrained(table, OPTIONS)
    for row, block in enumerate((table.embeddings, table.contexts.astype(np.float32))):
        centred = block - block.mean(axis=0)
        np.testing.assert_allclose(net.means[row].numpy(), block.mean(axis=0), atol=1e-6)
        assert float(net.scales[row]) == pytest.approx(np.sqrt(np.square(centred).sum(axis=1).mean()), rel=1e-5)
    np.testing.assert_array_equal(net.probe.numpy(), table.probe)


def test_what_is_saved_is_read_again(table: TermTable, tmp_path: Path) -> None:
    examples = examples_of(table, seed=1, prompts=5)
    net, path = train(table, examples, replace(OPTIONS, epochs=1)), tmp_path / "net.safetensors"
    save_net(net, path, seed=4)
    read = load_net(path)
    np.testing.assert_allclose(predict(read, table, examples), predict(net, table, examples), atol=2e-3)
    for name in ("means", "scales", "probe"):
        assert torch.equal(getattr(read, name), getattr(net, name))
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["config"])
        assert str(file.get_tensor("mix.weight").dtype) == "torch.float16"
    assert facts == {"format": FORMAT, "dim": DIM, "hidden": OPTIONS.hidden, "seed": 4}


def test_examples_are_joined_with_their_own_prompts(table: TermTable) -> None:
    parts = [examples_of(table, seed, prompts) for seed, prompts in ((1, 3), (2, 4))]
    joined = Examples.joined(parts)
    assert joined.owners.max() == 6
    net = untrained(table, OPTIONS)
    apart = np.concatenate([predict(net, table, part) for part in parts])
    np.testing.assert_array_equal(predict(net, table, joined), apart)


def test_no_examples_are_refused(table: TermTable) -> None:
    with pytest.raises(ValueError, match="give at least one"):
        train(table, examples_of(table, seed=1, prompts=0))
