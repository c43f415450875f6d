from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unprompt.errors import LibraryError
from unprompt.index.choice import Candidate, candidates, choose
from unprompt.index.goal import IndexGoal, parse_bytes, parse_seconds
from unprompt.index.pilot import growth, predict_latencies
from unprompt.index.vector_index import VectorIndex, choose_factory
from vectors import blocks_of, clustered

MILLION = 1_000_000


@pytest.mark.parametrize("rows", [1, 49_999, 50_000, MILLION, 3_000_000, 9_000_000])
def test_without_limits_the_rows_decide(rows: int) -> None:
    choice = choose(rows, 512, IndexGoal())
    assert (choice.factory, choice.on_disk) == (choose_factory(rows), False)


@pytest.mark.parametrize(
    ("memory", "factory", "on_disk"),
    [
        ("2GB", "IVF4096,SQfp16", False),
        ("600MB", "IVF4096,SQ8", False),
        ("500MB", "IVF4096,SQ8", True),
        ("10MB", "IVF4096,SQ8", True),
    ],
)
def test_memory_narrows_the_choice(memory: str, factory: str, on_disk: bool) -> None:
    choice = choose(MILLION, 512, IndexGoal(max_memory=parse_bytes(memory)))
    assert (choice.factory, choice.on_disk) == (factory, on_disk)


def latencies(milliseconds: dict[str, float]) -> dict[str, float]:
    return {factory: value / 1e3 for factory, value in milliseconds.items()}


FEASIBLE = latencies(
    {
        "Flat": 298,
        "IVF4096,SQfp16": 0.8,
        "IVF4096,SQ8": 0.7,
        "IVF4096,PQ256x4fsr,Refine(SQ8)": 0.8,
        "IVF4096,RaBitQfs,Refine(SQ8)": 1.4,
        "HNSW32,SQfp16": 0.45,
    }
)


@pytest.mark.parametrize(
    ("latency", "memory", "factory"),
    [
        ("1s", None, "Flat"),
        ("10ms", None, "IVF4096,SQfp16"),
        ("10ms", "700MB", "IVF4096,SQ8"),
        ("750us", None, "IVF4096,SQ8"),
        ("500us", None, "HNSW32,SQfp16"),
        ("1us", None, "HNSW32,SQfp16"),  # nothing is fast enough: the fastest
        ("1us", "600MB", "IVF4096,SQ8"),
    ],
)
def test_latency_narrows_the_choice(latency: str, memory: str | None, factory: str) -> None:
    goal = IndexGoal(max_latency=parse_seconds(latency), max_memory=parse_bytes(memory) if memory else None)
    asked: list[list[str]] = []

    def measure(fits: Sequence[Candidate]) -> dict[str, float]:
        asked.append([candidate.factory for candidate in fits])
        return FEASIBLE

    choice = choose(MILLION, 512, goal, measure)
    assert choice.factory == factory
    assert len(asked) == 1
    assert ("nothing is fast enough" in choice.reason) == (latency == "1us")


@pytest.mark.parametrize("factory", [c.factory for c in candidates(20_000, 64)])
def test_the_bytes_expected_are_those_of_the_file(factory: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = clustered(20_000, 64)
    expected = next(c.bytes for c in candidates(20_000, 64) if c.factory == factory)
    path = tmp_path_factory.mktemp("size") / "index"
    VectorIndex.build(lambda: blocks_of(corpus, 5000), len(corpus), 64, factory).write(path)
    assert path.stat().st_size == pytest.approx(expected, rel=0.08)


def test_latencies_are_measured_and_scaled() -> None:
    corpus = clustered(3000)
    listed = [c for c in candidates(3000, 16) if "PQ" not in c.factory]
    found = predict_latencies(lambda: blocks_of(corpus), 3000, listed, IndexGoal())
    assert set(found) == {candidate.factory for candidate in listed}
    assert all(0 < seconds < 0.1 for seconds in found.values())


@given(rows=st.integers(20_000, 10**9))
@settings(max_examples=30, deadline=None)
def test_exact_search_grows_fastest_and_graphs_slowest(rows: int) -> None:
    flat, lists = growth("Flat", 20_000, rows), growth("IVF4096,SQ8", 20_000, rows)
    assert flat >= lists >= 1
    assert growth("HNSW32,SQfp16", 20_000, rows) <= 2 * max(1.0, lists)
    assert growth("Flat", 20_000, 20_000) == 1


def test_sizes_and_durations_are_read() -> None:
    assert [parse_bytes(text) for text in ("8GB", "512 MiB", "1.5kb", "2e9", "100", "3G")] == [
        8 * 10**9,
        512 * 2**20,
        1500,
        2 * 10**9,
        100,
        3 * 10**9,
    ]
    assert [parse_seconds(text) for text in ("10ms", "0.5s", "250us")] == pytest.approx([0.01, 0.5, 0.00025])


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "1.2.3GB", "-8GB"])
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(LibraryError, match="use one such as 8GB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "ms", "10", "10 minutes", "-3ms"])
def test_what_is_no_duration_is_one_line(text: str) -> None:
    with pytest.raises(LibraryError, match="use one such as 10ms"):
        parse_seconds(text)


@pytest.mark.parametrize("values", [{"recall": 0.0}, {"recall": 1.1}, {"max_memory": 0}, {"max_latency": -1.0}])
def test_a_goal_that_cannot_be_wanted_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(LibraryError, match="use "):
        IndexGoal(**values)  # type: ignore[arg-type]


def test_a_goal_survives_the_manifest() -> None:
    for goal in (IndexGoal(), IndexGoal(0.9, 10**9, 0.01), IndexGoal(max_latency=0.5)):
        assert IndexGoal.from_dict(goal.to_dict()) == goal
    assert IndexGoal().to_dict() == {}
