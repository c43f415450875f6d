"""The GPU path: its decisions, and the PyTorch part on the CPU. What needs FAISS's GPU build skips without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from unprompt.errors import LibraryError
from unprompt.index.gpu.device import Device, accelerator_for, decide, device_kind, faiss_gpu_count
from unprompt.index.gpu.faiss_gpu import fits_gpu, gpu_nprobe, needs_shards, runs_on_gpu
from unprompt.index.gpu.search import torch_exact
from unprompt.index.training import Accelerator
from unprompt.index.truth import ground_truth
from unprompt.index.tune import recalls, truth_for
from unprompt.index.vector_index import VectorIndex, new_index
from unprompt.types import Embeddings
from vectors import blocks_of, clustered, unit

needs_gpu = pytest.mark.skipif(not faiss_gpu_count(), reason="FAISS sees no GPU here")


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    return clustered(6000)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    from unprompt.index.gpu.kmeans import TorchAccelerator

    return TorchAccelerator("cpu")


@pytest.mark.parametrize(
    ("name", "faiss_gpus", "torch_gpus", "expected"),
    [
        ("cpu", 4, 4, Device("cpu")),
        ("mps", 0, 0, Device("cpu")),
        ("cuda", 1, 1, Device("faiss", (0,))),
        ("cuda", 4, 4, Device("faiss", (0, 1, 2, 3))),
        ("cuda:2", 4, 4, Device("faiss", (2,))),
        ("cuda:0,2", 4, 4, Device("faiss", (0, 2))),
        ("cuda", 2, 0, Device("faiss", (0, 1))),
        ("cuda", 0, 2, Device("torch", (0,))),
        ("cuda:1", 0, 2, Device("torch", (1,))),
    ],
)
def test_the_engine_is_decided_by_what_there_is(name: str, faiss_gpus: int, torch_gpus: int, expected: Device) -> None:
    assert decide(name, faiss_gpus, torch_gpus) == expected


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda"), ("cuda:0,2", "cuda")])
def test_devices_of_a_kind_are_one_kind_whatever_their_numbers(name: str, kind: str) -> None:
    assert device_kind(name) == kind


def test_a_missing_gpu_is_one_line_that_names_the_remedy() -> None:
    with pytest.raises(LibraryError, match="use --device cpu, or install") as caught:
        decide("cuda", 0, 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(LibraryError, match="no GPU 3"):
        decide("cuda:0,3", 2, 2)


def test_the_cpu_needs_no_accelerator() -> None:
    assert accelerator_for("cpu") is None


def test_limits_of_gpus_are_kept() -> None:
    assert gpu_nprobe("nprobe=64") == 64
    assert gpu_nprobe("nprobe=5000,k_factor_rf=4") == 2048
    assert gpu_nprobe("") is None
    assert (fits_gpu(2048), fits_gpu(2049)) == (True, False)


def test_an_index_is_shared_out_only_when_a_gpu_cannot_hold_it() -> None:
    assert not needs_shards(10**9, [10**8])  # one GPU has nobody to share with
    assert not needs_shards(10**9, [2 * 10**9, 2 * 10**9])
    assert needs_shards(10**9, [2 * 10**9, 10**9])


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("Flat", True),
        ("IVF16,Flat", True),
        ("IVF16,SQfp16", True),
        ("IVF16,SQ8", True),
        ("IVF16,PQ8", True),
        ("IVF16,PQ8x4fs", False),
        ("IVF16,PQ8x4fsr,Refine(SQ8)", False),
        ("IVF16,RaBitQ", False),
        ("HNSW8,SQfp16", False),
    ],
)
def test_which_kinds_run_on_gpus(factory: str, expected: bool, corpus: Embeddings) -> None:
    index, _ = new_index(lambda: blocks_of(corpus), len(corpus), 16, factory)
    assert runs_on_gpu(index) == expected


def test_torch_centroids_are_of_norm_one_and_the_same_every_time(corpus: Embeddings, accelerator: Accelerator) -> None:
    found = accelerator.centroids(corpus, 64)
    assert found.shape == (64, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found, accelerator.centroids(corpus, 64))


def test_torch_assigns_to_the_nearest(corpus: Embeddings, accelerator: Accelerator) -> None:
    centroids = unit(50, seed=8)
    found = accelerator.assign(corpus, centroids)
    np.testing.assert_array_equal(found, (corpus @ centroids.T).argmax(axis=1))


def test_clusters_that_were_empty_are_filled(accelerator: Accelerator) -> None:
    corpus = np.repeat(unit(6), [500, 100, 100, 100, 100, 100], axis=0)  # most first centroids coincide
    noisy = corpus + 0.02 * unit(1000, seed=3)
    noisy = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    centroids = accelerator.centroids(noisy, 12)
    used = np.bincount(accelerator.assign(noisy, centroids), minlength=12)
    assert (used > 0).sum() >= 11


@pytest.mark.parametrize(
    "factory", ["IVF64,SQfp16", "IVF64,SQ8", "IVF64,PQ8x4", "IVF64,PQ8x4fsr,Refine(SQ8)", "IVF64,SQ8,Refine(Flat)"]
)
def test_torch_training_recalls_as_much_as_faiss(factory: str, corpus: Embeddings, accelerator: Accelerator) -> None:
    truth = truth_for(lambda: blocks_of(corpus), len(corpus))
    built = [VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, factory, how) for how in (None, accelerator)]
    native, torched = (recalls(index, truth, "nprobe=8")[0] for index in built)
    assert [len(index) for index in built] == [6000, 6000]
    assert torched > native - 0.03


def test_too_few_points_are_one_line(accelerator: Accelerator) -> None:
    with pytest.raises(LibraryError, match="cannot be made"):
        VectorIndex.build(lambda: blocks_of(unit(20)), 20, 16, "IVF64,SQ8", accelerator)


@pytest.mark.parametrize("half", [False, True])
def test_torch_search_is_exact(half: bool) -> None:
    import torch

    from unprompt.index.gpu.exact import TorchFlat

    corpus = unit(5000, 32)
    queries = unit(40, 32, seed=5)
    index = VectorIndex(TorchFlat(blocks_of(corpus), 32, "cpu", torch.float16 if half else None), "Flat", mapped=True)
    scores, rows = index.search(queries, 10)
    stored = corpus.astype(np.float16).astype(np.float32) if half else corpus
    truth = ground_truth(lambda: blocks_of(stored), queries)
    np.testing.assert_array_equal(rows, truth.rows[:, :10])
    np.testing.assert_allclose(scores, truth.scores[:, :10], atol=1e-5)


def test_torch_search_orders_equal_rows_and_fills_up() -> None:
    corpus = np.repeat(unit(2), 4, axis=0)
    index = torch_exact(lambda: blocks_of(corpus, 3), 16, "cpu")
    scores, rows = index.search(corpus[:1], 10)
    assert rows[0].tolist()[:4] == [0, 1, 2, 3]
    assert rows[0].tolist()[8:] == [-1, -1]
    assert np.isneginf(scores[0, 8:]).all()
    with pytest.raises(LibraryError, match="cannot be added to"):
        index.add(corpus)


@needs_gpu
@pytest.mark.parametrize("factory", ["IVF64,SQfp16", "IVF64,SQ8", "IVF64,PQ8x4fsr,Refine(SQ8)"])
def test_faiss_builds_on_the_gpu(factory: str, corpus: Embeddings) -> None:
    truth = truth_for(lambda: blocks_of(corpus), len(corpus))
    built = [
        VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, factory, accelerator_for(name))
        for name in ("cpu", "cuda")
    ]
    cpu, gpu = (recalls(index, truth, "nprobe=8")[0] for index in built)
    assert [len(index) for index in built] == [6000, 6000]
    assert gpu > cpu - 0.03


@needs_gpu
@pytest.mark.parametrize("factory", ["Flat", "IVF64,SQfp16"])
def test_faiss_searches_on_the_gpu(factory: str, corpus: Embeddings) -> None:
    from unprompt.index.gpu.device import resolve
    from unprompt.index.gpu.search import on_device

    index = VectorIndex.build(lambda: blocks_of(corpus), len(corpus), 16, factory)
    gpu = on_device(index, resolve("cuda"), lambda: blocks_of(corpus), 10**6)
    same = np.mean(gpu.search(corpus[:200], 10)[1] == index.search(corpus[:200], 10)[1])
    assert same > 0.95
    assert gpu.search(corpus[:2], 3000)[1].shape == (2, 3000)
