from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest
import torch

from fakes import normalise
from unprompt.index.calibration import Calibration
from unprompt.index.vocabulary import Vocabulary
from unprompt.search import product as product_module
from unprompt.search.product import ALONE, UNIT_ROUNDOFF, Bfloat16Copy, TermProduct, joined, product_of
from unprompt.search.quantized import Int8Copy
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranker import FragmentRanker
from unprompt.search.results import ScoredFragment
from unprompt.search.topk import Error, product_error
from unprompt.types import Embeddings, Fragment

DIM = 48


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies bfloat16 and 8 bits, and with terms enough that both are worth it."""
    monkeypatch.setattr(product_module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(product_module, "multiplies_int8", lambda: True)
    monkeypatch.setattr(product_module, "ALONE", 5)
    monkeypatch.setattr(product_module, "LARGE", 0)


def unit(rows: int, seed: int, dim: int = DIM) -> Embeddings:
    return normalise(np.random.default_rng(seed).standard_normal((rows, dim)))


def exact_scores(vocabulary: Vocabulary, query: np.ndarray) -> np.ndarray:
    return (vocabulary.matrix.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def vocabulary_of(embeddings: Embeddings) -> Vocabulary:
    half = len(embeddings) // 2
    kinds = ["flavor"] * half + ["medium"] * (len(embeddings) - half)
    return Vocabulary.of([Fragment(f"{kind} {i}", kind) for i, kind in enumerate(kinds)], embeddings)


def near_ties(seed: int) -> Embeddings:
    """Terms that bfloat16 cannot tell apart, some of them the same, among others; shuffled."""
    rng = np.random.default_rng(seed)
    rows = [normalise(unit(1, seed) + 1e-4 * unit(1500, seed + 1)), np.tile(unit(1, seed), (300, 1)), unit(1200, 5)]
    return np.ascontiguousarray(rng.permutation(np.concatenate(rows)), dtype=np.float32)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("embeddings", [unit(3000, 0), near_ties(1), near_ties(2)], ids=["random", "ties", "ties2"])
@pytest.mark.parametrize("k", [1, 10, 100, 4000])
def test_rankings_are_those_of_brute_force(embeddings: Embeddings, k: int) -> None:
    vocabulary = vocabulary_of(embeddings)
    queries = np.concatenate([unit(15, 3), normalise(unit(2, 1) + 0.3 * unit(2, 4))])
    rows = np.arange(len(embeddings))
    ranker = FragmentRanker(vocabulary)
    merged, lowest = ranker.merged(queries, k), ranker.lowest(queries, k, ["flavor", "medium"])
    one_by_one = [ranker.merged(query[None], k)[0] for query in queries]
    assert product_of(vocabulary)._for_batches is not None
    assert product_of(vocabulary)._for_one is not None
    assert one_by_one == merged
    for query, best, least in zip(queries, merged, lowest, strict=True):
        scores = exact_scores(vocabulary, query)
        assert [each.row for each in best] == np.lexsort((rows, -scores)).tolist()[:k]
        assert [each.row for each in least] == np.lexsort((rows, scores)).tolist()[:k]
        assert [each.score for each in best] == scores[[each.row for each in best]].tolist()


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(
    "options",
    [
        RankOptions(min_score=0.25),
        RankOptions(order="percentile"),
        RankOptions(order="percentile", min_score=0.2, min_percentile=0.95),
        RankOptions(min_percentile=0.98),
        RankOptions(collapse=0.9, diversity=0.5),
        RankOptions(kinds=("medium",), exclude_terms=("*1*",)),
    ],
    ids=str,
)
@pytest.mark.parametrize("embeddings", [unit(3000, 0), near_ties(1)], ids=["random", "ties"])
def test_options_give_what_float32_gives(options: RankOptions, embeddings: Embeddings) -> None:
    queries = normalise(unit(20, 3) + 0.5 * unit(1, 1))
    found = []
    for batch in (20, 10, 1):  # ten are multiplied in float32, as are the first of those that come alone
        vocabulary = vocabulary_of(embeddings)
        vocabulary.calibration = Calibration.fit(vocabulary.matrix, unit(200, 7))
        ranker = FragmentRanker(vocabulary, options)
        found.append([ranked for i in range(0, 20, batch) for ranked in _both(ranker, queries[i : i + batch])])
        assert (product_of(vocabulary)._for_batches is not None) == (batch == 20)
        assert (product_of(vocabulary)._for_one is not None) == (batch == 1)
    assert found[0] == found[1] == found[2]
    assert any(map(any, found[0]))


def _both(ranker: FragmentRanker, queries: Embeddings) -> list[tuple[list[ScoredFragment], ...]]:
    kinds = [tuple(each.values()) for each in ranker.per_kind(queries, 12)]
    return [(merged, *own) for merged, own in zip(ranker.merged(queries, 40), kinds, strict=True)]


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("seed", range(8))
def test_any_vocabulary_is_ranked_as_by_brute_force(seed: int) -> None:
    """Ties, hidden terms, k beyond what is allowed, several lists, and the least similar; in batches of any size."""
    rng = np.random.default_rng([seed, 7])
    terms, k = int(rng.integers(300, 5000)), int(rng.choice([1, 7, 60, 6000]))
    distinct = unit(terms, seed)[: int(rng.choice([1, 5, 90, terms]))]
    matrix = np.ascontiguousarray(distinct[rng.integers(0, len(distinct), terms)])
    kinds = np.sort(rng.choice(["artwork", "flavor", "medium", "negative"], terms, p=[0.02, 0.6, 0.3, 0.08]))
    vocabulary = Vocabulary.of([Fragment(f"{i:05}", kind) for i, kind in enumerate(kinds.tolist())], matrix)
    ranker = FragmentRanker(vocabulary, RankOptions(exclude_terms=tuple(rng.choice(["*7", "0*", "?1???", "*3*"], 2))))
    queries = np.concatenate([unit(8, seed + 1), normalise(distinct[:1] + 0.1 * unit(9, seed + 2))])
    plain = ("medium", "artwork", "flavor")
    for batch in (1, 4, 17):
        for start in range(0, len(queries), batch):
            part = queries[start : start + batch]
            merged, lowest = ranker.merged(part, k), ranker.lowest(part, k, plain)
            for i, each in enumerate(ranker.per_kind(part, k)):
                scores = exact_scores(vocabulary, part[i])
                assert {kind: [one.row for one in found] for kind, found in each.items()} == {
                    kind: best_of(scores, ranker.allowed & (kinds == kind), k) for kind in ranker.kinds
                }
                mask = ranker.allowed & (kinds != "negative")
                assert [one.row for one in merged[i]] == best_of(scores, mask, k)
                assert [one.row for one in lowest[i]] == best_of(-scores, mask, k)
    assert product_of(vocabulary)._for_batches is not None
    assert (product_of(vocabulary)._for_one is not None) == bool(ranker.kinds)  # the exclusions may leave nothing


def best_of(scores: np.ndarray, mask: np.ndarray, k: int) -> list[int]:
    rows = np.flatnonzero(mask)
    found: list[int] = rows[np.lexsort((rows, -scores[rows]))][:k].tolist()
    return found


@pytest.mark.parametrize("vectors", ["random", "up", "down", "skewed"])
def test_no_product_is_further_off_than_told(vectors: str) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((2000, 384))
    if vectors in ("up", "down"):  # all numbers are rounded the same way, as far as can be
        step = 2.0**-7 * (0.5001 if vectors == "up" else 0.4999)
        matrix = 2.0 ** rng.integers(-6, -3, matrix.shape) * (1 + step)
    elif vectors == "skewed":
        matrix = normalise(matrix**5)
    else:
        matrix = normalise(matrix)
    matrix = matrix.astype(np.float32)
    queries = matrix[::40].copy()
    copy = Bfloat16Copy(matrix)
    values = copy.multiply(queries, [(100, 2000)]).by_query()
    offs = np.abs(values - queries.astype(np.float64) @ matrix[100:].astype(np.float64).T)
    absolute, relative, _ = copy.error(queries)
    assert (offs <= absolute + relative * np.abs(values)).all()
    off, longest = offs.max(), np.linalg.norm(matrix, axis=1).max() ** 2
    least = 1.5 * UNIT_ROUNDOFF if vectors in ("up", "down") else 1e-4
    assert least * longest < off <= copy.error(queries).most < 3.1 * UNIT_ROUNDOFF * longest


def test_small_batches_are_multiplied_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(product_module, "BATCH", 8)
    queries, matrix = unit(8, 1), unit(500, 2)
    small = TermProduct(matrix)
    assert small.cosines(queries, [(0, 500)]).error == Error.of(product_error(DIM))  # so few terms are soon multiplied
    monkeypatch.setattr(product_module, "LARGE", 500 * DIM)
    product = TermProduct(matrix)
    assert product.cosines(queries[:7], [(0, 500)]).error == Error.of(product_error(DIM))
    assert product.cosines(queries, [(0, 500)]).error.most > product_error(DIM)
    assert product.cosines(queries[:2], [(0, 500)]).error.most > product_error(DIM)
    alone = product.cosines(queries[:1], [(0, 500)])
    assert alone.error == Error.of(product_error(DIM))
    np.testing.assert_allclose(alone.scores.by_query(), queries[:1] @ matrix.T, atol=alone.error.most)


def test_a_processor_without_bfloat16_multiplies_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "LARGE", 0)
    monkeypatch.setattr(product_module, "multiplies_bfloat16", lambda: False)
    product = TermProduct(unit(500, 2))
    assert product.cosines(unit(64, 1), [(0, 500)]).error == Error.of(product_error(DIM))
    assert product._for_batches is None


@pytest.mark.parametrize("vectors", ["random", "skewed", "rounded", "blank"])
def test_no_8_bit_product_is_further_off_than_told(vectors: str) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((1000, 384))
    if vectors == "skewed":  # a few numbers are large, and leave no levels for the others
        matrix = normalise(matrix**7)
    elif vectors == "rounded":  # every number lies midway between two levels, on the same side
        matrix = np.sign(matrix) * (rng.integers(0, 3, matrix.shape) + 0.5)
        matrix[:, 0] = 127.0
    elif vectors == "blank":
        matrix[::7] = 0.0
    else:
        matrix = normalise(matrix)
    matrix = matrix.astype(np.float32)
    copy = Int8Copy(matrix)
    length = np.linalg.norm(matrix, axis=1).max() ** 2
    for query in [*matrix[:30], np.full(384, 384**-0.5, np.float32)]:
        scores, error = copy.cosines(query[None], [(100, 1000)])
        off = np.abs(scores.by_query() - query.astype(np.float64) @ matrix[100:].astype(np.float64).T).max()
        assert off <= error.most < 0.1 * length
    # The bound is no fantasy: a query along a row's own residual comes near it.
    scale = np.abs(matrix[1]).max() / np.float32(127)
    residual = (matrix[1] - np.rint(matrix[1] / scale) * scale)[None]
    scores, error = copy.cosines(residual, [(1, 2)])
    assert abs(float(scores.by_query()[0, 0]) - float(residual[0] @ matrix[1])) > 0.2 * error.most


@pytest.mark.parametrize("dim", [3, 522, 523, 768, 1024, 4100])
def test_8_bit_products_of_any_width_are_exact_sums(dim: int) -> None:
    """Along the diagonal every product is as large as it can be, and so are the sums; tiny vectors are not lost."""
    matrix = np.concatenate([np.full((1, dim), dim**-0.5), -np.full((1, dim), dim**-0.5), unit(50, 1, dim)])
    matrix = matrix.astype(np.float32)
    queries = np.concatenate([matrix[:3], np.full((1, dim), 1e-44, np.float32), np.zeros((1, dim), np.float32)])
    copy = Int8Copy(matrix)
    for query in queries:
        scores, error = copy.cosines(query[None], [(0, 52)])
        off = np.abs(scores.by_query()[0] - matrix.astype(np.float64) @ query.astype(np.float64)).max()
        assert off <= error.most
    assert copy.cosines(matrix[:1], [(0, 2)]).scores.by_query()[0] == pytest.approx([1.0, -1.0], abs=1e-6)


def test_a_copy_for_single_queries_is_made_once_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_module, "multiplies_int8", lambda: True)
    matrix, query = unit(500, 2), unit(1, 1)
    small = TermProduct(matrix)
    assert {small.cosines(query, [(0, 500)]).error for _ in range(2 * ALONE)} == {Error.of(product_error(DIM))}
    monkeypatch.setattr(product_module, "LARGE", 500 * DIM)
    product = TermProduct(matrix)
    errors = [product.cosines(query, [(0, 500)]).error for _ in range(ALONE + 1)]
    assert errors[:ALONE] == [Error.of(product_error(DIM))] * ALONE
    assert errors[ALONE].most > product_error(DIM)
    monkeypatch.setattr(product_module, "multiplies_int8", lambda: False)
    plain = TermProduct(matrix)
    assert {plain.cosines(query, [(0, 500)]).error for _ in range(2 * ALONE)} == {Error.of(product_error(DIM))}


def test_few_rows_are_not_worth_a_product_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 8-bit copy is multiplied whole, so that a kind of few terms is sooner multiplied in float32."""
    monkeypatch.setattr(product_module, "multiplies_int8", lambda: True)
    monkeypatch.setattr(product_module, "LARGE", 0)
    product, query = TermProduct(unit(500, 2)), unit(1, 1)
    exact, rounded = Error.of(product_error(DIM)), ALONE + 1
    assert {product.cosines(query, [(3, 128)]).error for _ in range(rounded)} == {exact}
    errors = [product.cosines(query, [(3, 129)]).error for _ in range(rounded)]
    assert errors[:ALONE] == [exact] * ALONE
    assert errors[ALONE].most > exact.most
    assert product.cosines(query, [(3, 128)]).error == exact


def test_the_processor_is_asked() -> None:
    assert product_module.multiplies_int8() == torch.cpu._is_vnni_supported()
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert product_module.multiplies_bfloat16() == (supported and torch.cpu._is_amx_tile_supported())


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize(("queries", "asked"), [(1, 1), (1, 9), (9, 1), (20, 1)])
def test_ranges_stand_one_after_the_other(queries: int, asked: int) -> None:
    matrix, batch = unit(40_000, 0), unit(queries, 1)
    ranges = [(3, 5), (5, 30_000), (35_000, 35_001)]
    rows = np.concatenate([np.arange(*each) for each in ranges])
    product = TermProduct(matrix)
    scores, error = [product.cosines(batch, ranges) for _ in range(asked)][-1]
    assert scores.shape == (len(rows), queries)
    assert (error.most > product_error(DIM)) == (queries == 20 or asked > 5)
    np.testing.assert_allclose(scores.by_query(), batch @ matrix[rows].T, atol=error.most)
    assert list(joined(ranges)) == [(3, 30_000), (35_000, 35_001)]
    assert product.cosines(batch, []).scores.shape == (0, queries)


def test_a_vocabulary_has_one_product_as_long_as_it_lives() -> None:
    vocabulary = vocabulary_of(unit(10, 0))
    assert product_of(vocabulary) is product_of(vocabulary)
    assert product_of(vocabulary_of(unit(10, 0))) is not product_of(vocabulary)
    before = len(product_module._products)
    del vocabulary
    gc.collect()
    assert len(product_module._products) < before


def test_ranking_does_not_import_torch() -> None:
    code = """
import sys
import numpy as np
from unprompt.index.vocabulary import Vocabulary
from unprompt.search import product
from unprompt.search.ranker import FragmentRanker
from unprompt.types import Fragment
product.LARGE = 0
rows = np.eye(32, dtype=np.float32)
ranker = FragmentRanker(Vocabulary.of([Fragment(str(i), "flavor") for i in range(32)], rows))
assert [found[0].row for found in ranker.merged(rows, 1)] == list(range(32))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
