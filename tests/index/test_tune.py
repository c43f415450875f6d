from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from unprompt.errors import LibraryError
from unprompt.index.goal import IndexGoal
from unprompt.index.parameters import format_parameters, parse_parameters
from unprompt.index.report import FLATTERED, report_on
from unprompt.index.truth import ground_truth, recall
from unprompt.index.tune import held_out, measure, recalls, truth_for, tune
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings
from vectors import blocks_of, clustered, unit

FACTORIES = [
    "IVF64,SQfp16",
    "IVF64,SQ8",
    "HNSW16,SQfp16",
    "IVF64,PQ8x4fsr,Refine(SQ8)",
    "IVF64,RaBitQ,Refine(SQ8)",
    "PCA12,IVF64,SQ8",
]


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    return clustered(4000)


@pytest.fixture(scope="module")
def indexes(corpus: Embeddings) -> dict[str, VectorIndex]:
    return {f: VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, f) for f in FACTORIES}


def test_ground_truth_is_brute_force_without_the_query_itself() -> None:
    corpus = unit(500)
    queries, own = held_out(lambda: blocks_of(corpus, 90), 500, 40)
    truth = ground_truth(lambda: blocks_of(corpus, 90), queries, own)
    scores = queries @ corpus.T
    scores[np.arange(40), own] = -np.inf
    np.testing.assert_array_equal(truth.rows, np.argsort(-scores, axis=1, kind="stable")[:, : truth.rows.shape[1]])
    assert not (truth.rows == own[:, None]).any()
    np.testing.assert_array_equal(queries, corpus[own])


def test_an_index_of_few_rows_has_recall_one() -> None:
    corpus = unit(7)
    truth = truth_for(lambda: blocks_of(corpus), 7)
    index = VectorIndex.build(lambda: blocks_of(corpus), 7, 16)
    assert recalls(index, truth) == (1.0, 1.0)


def test_recall_counts_what_is_missing_and_allows_ties() -> None:
    corpus = np.repeat(unit(4), 5, axis=0)  # every vector five times
    truth = ground_truth(lambda: blocks_of(corpus), corpus[:1])
    assert recall(np.array([[4, 3, 2]]), truth, 3) == 1.0  # any three of the five
    assert recall(np.array([[4, 3, 19]]), truth, 3) == pytest.approx(2 / 3)
    assert recall(np.array([[-1, -1, -1]]), truth, 3) == 0.0


@pytest.mark.parametrize("factory", FACTORIES[:-1])
def test_tuning_reaches_the_goal_with_the_least_effort(
    factory: str, corpus: Embeddings, indexes: dict[str, VectorIndex]
) -> None:
    index = indexes[factory]
    truth = truth_for(lambda: blocks_of(corpus), len(corpus))
    found = tune(index, truth, 0.9)
    assert tune(index, truth, 0.9) == found
    near, deep = recalls(index, truth, found)
    assert near >= 0.9
    assert deep >= 0.85
    values = parse_parameters(found)
    name = next(iter(values))
    if values[name] > 1:
        less = recalls(index, truth, format_parameters({**values, name: values[name] // 2}))
        assert min(less[0], less[1] + 0.05) < 0.9


def test_a_goal_out_of_reach_gets_the_best_there_is(corpus: Embeddings, indexes: dict[str, VectorIndex]) -> None:
    index = indexes["PCA12,IVF64,SQ8"]  # four of sixteen dimensions are gone
    truth = truth_for(lambda: blocks_of(corpus), len(corpus))
    found = tune(index, truth, 1.0)
    assert recalls(index, truth, found)[0] < 1.0
    assert recalls(index, truth, found)[0] >= recalls(index, truth, "nprobe=64")[0] - 0.005


def test_measuring_says_what_is_true(corpus: Embeddings, indexes: dict[str, VectorIndex]) -> None:
    truth = truth_for(lambda: blocks_of(corpus), len(corpus))
    exhaustive = indexes["IVF64,SQfp16"].with_parameters("nprobe=64")
    lazy = indexes["IVF64,SQfp16"].with_parameters("nprobe=1")
    good, bad = measure(exhaustive, truth), measure(lazy, truth)
    assert good.recall_10 > 0.99
    assert bad.recall_10 < good.recall_10
    assert min(good.qps_single, good.qps_batched, good.p50_ms) > 0
    assert good.queries == 400


@pytest.mark.parametrize("factory", FACTORIES)
def test_parameters_travel_with_the_call(factory: str, corpus: Embeddings, indexes: dict[str, VectorIndex]) -> None:
    index = indexes[factory]
    name = "efSearch" if factory.startswith("HNSW") else "nprobe"
    wide, narrow = (index.search(corpus[:200], 10, f"{name}={value}")[1] for value in (64, 1))
    assert (wide != narrow).any()
    np.testing.assert_array_equal(index.search(corpus[:200], 10, f"{name}=64")[1], wide)  # nothing was left behind
    np.testing.assert_array_equal(index.with_parameters(f"{name}=64").search(corpus[:200], 10)[1], wide)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("efSearch=10", "it has: nprobe"),
        ("nprobe", "cannot be read"),
        ("nprobe=x", "cannot be read"),
        ("nprobe=0", "1 or more"),
    ],
)
def test_parameters_that_an_index_lacks_are_one_line(
    parameters: str, message: str, corpus: Embeddings, indexes: dict[str, VectorIndex]
) -> None:
    with pytest.raises(LibraryError, match=message):
        indexes["IVF64,SQ8"].search(corpus[:1], 1, parameters)


@pytest.mark.parametrize("factory", ["Flat", *FACTORIES])
def test_a_mapped_index_answers_the_same_and_cannot_be_added_to(
    factory: str, corpus: Embeddings, tmp_path: Path
) -> None:
    index = VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, factory)
    index.write(tmp_path / "index")
    mapped = VectorIndex.read(tmp_path / "index", factory, index.parameters, mapped=True)
    for found, expected in zip(mapped.search(corpus[:60], 9), index.search(corpus[:60], 9), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(LibraryError, match="mapped"):
        mapped.add(corpus[:1])


@pytest.mark.parametrize("factory", ["Flat", "IVF64,SQfp16", "HNSW16,SQfp16", "IVF64,RaBitQ,Refine(SQ8)"])
def test_many_threads_search_one_index_each_with_its_own_parameters(
    factory: str, corpus: Embeddings, tmp_path: Path
) -> None:
    VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, factory).write(tmp_path / "index")
    index = VectorIndex.read(tmp_path / "index", factory, mapped=True)
    name = {"F": "", "H": "efSearch", "I": "nprobe"}[factory[0]]
    settings = [f"{name}={value}" if name else "" for value in (1, 4, 16, 64)] * 2
    expected = [index.search(corpus[:100], 5, parameters) for parameters in settings]
    wrong: list[str] = []

    def work(at: int) -> None:
        for _ in range(15):
            scores, rows = index.search(corpus[:100], 5, settings[at])
            if not (np.array_equal(rows, expected[at][1]) and np.array_equal(scores, expected[at][0])):
                wrong.append(settings[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_searching_leaves_the_interpreter_to_other_threads() -> None:
    corpus = unit(30_000, 128)
    index = VectorIndex.build(lambda: blocks_of(corpus, 10_000), len(corpus), 128)
    queries = np.tile(corpus[:2000], (4, 1))
    done = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.002)

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.02)
    started = time.perf_counter()
    index.search(queries, 10)
    ended = time.perf_counter()
    done.set()
    thread.join()
    inside = [moment for moment in ticks if started <= moment <= ended]
    longest = [after - before for before, after in pairwise(inside)]
    assert len(inside) > 5, "the search was over before anything could be seen"
    assert max(longest) < (ended - started) / 2


@pytest.mark.parametrize(("factory", "flattered"), [("HNSW16,SQfp16", True), ("IVF64,SQfp16", False)])
def test_the_report_says_where_its_queries_flatter(
    factory: str, flattered: bool, corpus: Embeddings, indexes: dict[str, VectorIndex]
) -> None:
    """A graph finds the neighbours of its own nodes sooner than those of others."""
    own = truth_for(lambda: blocks_of(corpus), len(corpus))
    others = truth_for(lambda: blocks_of(corpus), len(corpus), unit(50, seed=5))
    found = report_on(indexes[factory], own, "as asked for", IndexGoal(0.01))
    assert (FLATTERED in found.reason) == flattered
    assert report_on(indexes[factory], others, "as asked for", IndexGoal(0.01)).reason == "as asked for"
