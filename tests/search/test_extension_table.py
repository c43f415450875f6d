from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from chain_cases import at_most
from fakes import FakeEncoder, normalise
from unprompt.index.vocabulary import Vocabulary
from unprompt.search import extension_table
from unprompt.search.chains import Chain
from unprompt.search.effect_model import EffectModel
from unprompt.search.extension_net import ExtensionNet
from unprompt.search.extension_table import ROWS, WEIGHTS, ExtensionTable, table_of
from unprompt.search.local_search import LocalOptions, search_locally
from unprompt.search.rounds import advance_together
from unprompt.search.terms import Terms
from unprompt.types import Embeddings, Fragment

DIM, COUNT = 32, 2 * ROWS + 7


def net_of(seed: int, dim: int = DIM) -> ExtensionNet:
    torch.manual_seed(seed)
    net = ExtensionNet(dim, 16)
    for layer in (net.gate, net.out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return net.eval().requires_grad_(False)


def unit(seed: int, count: int, dim: int = DIM) -> Embeddings:
    return normalise(np.random.default_rng(seed).standard_normal((count, dim)))


def case(seed: int = 0) -> tuple[ExtensionNet, ExtensionTable, Chain, NDArray[np.float32]]:
    lengths = np.random.default_rng(seed).integers(1, 40, COUNT).astype(np.float32)
    net, prompt = net_of(seed), unit(seed + 2, 1)[0]
    table = ExtensionTable(net, unit(seed, COUNT), unit(seed + 1, COUNT).astype(np.float16), lengths)
    return net, table, Chain((), "a prompt of some length", 0.0, 0.0, prompt), lengths


def test_a_table_predicts_what_its_network_does() -> None:
    net, table, chain, lengths = case()
    query, rows = unit(9, 1)[0], np.random.default_rng(1).permutation(COUNT)[: ROWS + 40]
    contexts = torch.from_numpy(unit(1, COUNT).astype(np.float16).astype(np.float32))
    assert chain.embedding is not None
    whole = net(
        torch.from_numpy(unit(0, COUNT)),
        contexts,
        torch.from_numpy(lengths),
        torch.from_numpy(chain.embedding).expand(COUNT, -1),
        torch.full((COUNT,), float(len(chain.text))),
    )
    expected = (whole @ torch.from_numpy(query)).numpy()[rows]
    [found] = table.predict(query, [chain], rows)
    np.testing.assert_allclose(found, expected, atol=0.01)  # bfloat16
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert table.predict(query, [chain], rows[:0]).shape == (1, 0)


def test_predictions_do_not_depend_on_the_number_of_threads() -> None:
    _, table, chain, _ = case(3)
    longer = Chain((), "a prompt of some more length", 0.0, 0.0, unit(6, 1)[0])
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(table.predict(unit(9, 1)[0], [chain, longer], np.arange(COUNT)))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)


def test_the_model_learns_what_the_table_gets_wrong() -> None:
    _, table, chain, lengths = case(5)
    query, rows = unit(9, 1)[0], unit(5, COUNT)
    terms = Terms.of(["x" * int(n) for n in lengths], rows, rows @ query, np.ones(COUNT, bool))
    model = EffectModel(terms, table.of_query(query))
    model.activate([3, 8, 700])
    [prior] = model.priors([chain])
    np.testing.assert_array_equal(prior, table.predict(query, [chain], np.array([3, 8, 700]))[0])
    model.learn(np.array([8]), np.array([0.2]))
    assert model.correct(prior)[1] > prior[1] + 0.05
    assert model.everywhere(chain)[8] == np.inf


def test_a_search_by_a_table_repeats() -> None:
    encoder = FakeEncoder(64)
    texts = [f"word{i}" for i in range(60)]
    rows = encoder.encode_texts(texts)
    query = encoder.encode_texts(["a start, word3, word7, word12"])[0]
    table = ExtensionTable(net_of(1, 64), rows, rows.astype(np.float16), np.full(60, 5, np.float32))
    terms = Terms(texts, rows, rows, np.full(60, 5, np.float32), rows @ query, np.ones(60, bool), extensions=table)

    def found() -> list[Chain]:
        search = search_locally(query, "a start", terms, at_most(12), LocalOptions(max_encoded=200))
        return advance_together([search], encoder.encode_texts)[0]

    first, second = found(), found()
    assert [each.text for each in first] == [each.text for each in second]
    assert first[0].score > float(encoder.encode_texts(["a start"])[0] @ query)


class Probed:
    """An encoder that embeds every text as the network's probe, or beside it."""

    def __init__(self, cosine: float) -> None:
        self.row = unit(0, 1)[0] * np.float32(cosine)

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        return np.repeat(self.row[None], len(texts), axis=0)


@pytest.mark.parametrize(("contexts", "cosine", "known"), [(True, 1.0, True), (True, 0.9, False), (False, 1.0, False)])
def test_there_is_a_table_for_the_encoder_that_the_network_knows_once_terms_are_prepared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contexts: bool, cosine: float, known: bool
) -> None:
    net = net_of(2)
    net.probe.copy_(torch.from_numpy(unit(0, 1)[0]))
    monkeypatch.setattr(extension_table, "load_net", lambda path: net)
    vocabulary = Vocabulary.of([Fragment(f"term{i}", "flavor", "x") for i in range(5)], unit(7, 5))
    made = []

    def within() -> NDArray[np.float32] | None:
        made.append(1)
        return unit(8, 5) if contexts else None

    tables = [table_of(vocabulary, within, Probed(cosine)) for _ in range(2)]
    assert [table is not None for table in tables] == [known, known]
    assert tables[0] is tables[1]
    assert len(made) == 1


def test_the_packaged_network_reads() -> None:
    net = extension_table.load_net(WEIGHTS)
    assert net.probe.norm().item() == pytest.approx(1, abs=1e-3)
    assert not any(parameter.requires_grad for parameter in net.parameters())
