from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fakes import FakeEncoder, normalise
from unprompt.errors import QueryError
from unprompt.index.calibration import Calibration
from unprompt.index.vocabulary import Stored, Vocabulary
from unprompt.search import ranker as ranker_module
from unprompt.search.policy import Policy
from unprompt.search.ranker import FragmentRanker, RankOptions
from unprompt.search.results import ScoredFragment
from unprompt.types import Fragment

DIM = 24
KINDS = {"artist": 300, "flavor": 2500, "medium": 7, "negative": 40, "negative mine": 5}


def unit(rows: int, seed: int, dim: int = DIM) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((rows, dim)))


def random_vocabulary(calibrated: bool = False) -> Vocabulary:
    fragments = [Fragment(f"{kind} {i}", kind, "list") for kind, size in KINDS.items() for i in range(size)]
    made = Vocabulary.of(fragments, unit(sum(KINDS.values()) + KINDS["artist"], 0))
    if calibrated:
        made.calibration = Calibration.fit(made.matrix, unit(300, 1))
    return made


def brute_force(vocabulary: Vocabulary, query: np.ndarray, mask: np.ndarray, k: int, sign: int = 1) -> list[int]:
    scores = (vocabulary.matrix.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return [row for row in np.lexsort((np.arange(len(scores)), -sign * scores)).tolist() if mask[row]][:k]


def rows_of(found: Sequence[ScoredFragment]) -> list[int]:
    return [each.row for each in found]


def of_kinds(vocabulary: Vocabulary, *kinds: str) -> np.ndarray:
    mask = np.zeros(len(vocabulary.terms), dtype=bool)
    for kind in kinds:
        mask[slice(*vocabulary.kind_ranges[kind])] = True
    return mask


@pytest.mark.parametrize("k", [1, 5, 100, 5000])
def test_merged_is_the_sorted_list_of_all_but_negative_kinds(k: int) -> None:
    vocabulary, queries = random_vocabulary(), unit(3, 2)
    mask = of_kinds(vocabulary, "artist", "flavor", "medium")
    for query, found in zip(queries, FragmentRanker(vocabulary).merged(queries, k), strict=True):
        assert rows_of(found) == brute_force(vocabulary, query, mask, k)
        for each in found:
            assert each.text == vocabulary.terms[each.row]
            assert each.fragment == vocabulary.fragment(each.row)
            assert each.score == pytest.approx(float(vocabulary.matrix[each.row] @ query), abs=1e-6)
            assert each.percentile is None


@pytest.mark.parametrize("k", [1, 6, 400])
def test_per_kind_is_the_sorted_list_of_each(k: int) -> None:
    vocabulary, queries = random_vocabulary(), unit(3, 2)
    for query, kinds in zip(queries, FragmentRanker(vocabulary).per_kind(queries, k), strict=True):
        assert list(kinds) == list(KINDS)
        for kind, found in kinds.items():
            assert rows_of(found) == brute_force(vocabulary, query, of_kinds(vocabulary, kind), k)


def test_lowest_starts_with_the_least_similar() -> None:
    vocabulary, queries = random_vocabulary(), unit(2, 2)
    mask = of_kinds(vocabulary, "flavor", "negative")
    for query, found in zip(
        queries, FragmentRanker(vocabulary).lowest(queries, 50, ["negative", "flavor"]), strict=True
    ):
        assert rows_of(found) == brute_force(vocabulary, query, mask, 50, sign=-1)
        assert found[0].score == min(each.score for each in found) < 0


def test_nothing_is_lost_between_chunks() -> None:
    """clip-interrogator 0.6 keeps 37 of each 2,048 terms, so it misses most of 100 best that lie together."""
    target = unit(1, 7)[0]
    rows = unit(8000, 8)
    rows[3000:3100] = normalise(target + 0.05 * rows[3000:3100])
    vocabulary = Vocabulary.of([Fragment(f"term {i}", "flavor") for i in range(8000)], rows)
    (found,) = FragmentRanker(vocabulary).merged(target[None], 100)
    assert sorted(rows_of(found)) == list(range(3000, 3100))


def test_equal_scores_keep_stored_order() -> None:
    vocabulary = Vocabulary.of([Fragment(f"same {i}", "flavor") for i in range(900)], np.tile(unit(1, 0), (900, 1)))
    ranker = FragmentRanker(vocabulary)
    assert rows_of(ranker.merged(unit(1, 1), 20)[0]) == list(range(20))
    assert rows_of(ranker.lowest(unit(1, 1), 20, ["flavor"])[0]) == list(range(20))


def test_batches_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, queries = random_vocabulary(calibrated=True), unit(23, 3)
    ranker = FragmentRanker(vocabulary, RankOptions(collapse=0.8, diversity=0.6))
    whole = ranker.merged(queries, 10)
    assert whole == [ranker.merged(query[None], 10)[0] for query in queries]
    monkeypatch.setattr(ranker_module, "BLOCK", 7000)
    assert whole == ranker.merged(queries, 10)


def test_kinds_namespaces_and_deletions() -> None:
    stored = [
        Stored(Fragment("red", "flavor")),
        Stored(Fragment("green", "flavor", namespace="mine")),
        Stored(Fragment("blue", "flavor"), deleted=True),
        Stored(Fragment("photo", "medium", namespace="mine")),
        Stored(Fragment("ugly", "negative")),
        Stored(Fragment("  ", "flavor")),
    ]
    vocabulary = Vocabulary.from_stored(stored, unit(6, 0))

    def texts(kinds: Sequence[str] | None = None, **options: tuple[str, ...]) -> set[str]:
        ranker = FragmentRanker(vocabulary, RankOptions(**options))  # type: ignore[arg-type]
        return {each.text for each in ranker.merged(unit(1, 1), 9, kinds)[0]}

    # A blank term says nothing; clip-interrogator has one, and ranks it.
    assert texts() == {"red", "green", "photo"}
    assert texts(kinds=["negative"]) == {"ugly"}
    assert texts(namespaces=("mine",)) == {"green", "photo"}
    assert texts(**{"exclude_kinds": ("medium",)}) == {"red", "green"}
    ranker = FragmentRanker(vocabulary, RankOptions(kinds=("medium", "flavor")))
    assert list(ranker.per_kind(unit(1, 1), 2)[0]) == ["medium", "flavor"]
    assert ranker.merged(unit(1, 1), 2, ["negative"]) == [[]]
    assert ranker.allowed.tolist() == [vocabulary.terms[row] in ("red", "green", "photo") for row in range(6)]


def test_single_terms() -> None:
    texts = ["Trending on ArtStation", "artstation", "8k", "4k [raw]", "photo"]
    fragments = [*(Fragment(text, "flavor") for text in texts), Fragment("Greg Rutkowski", "artist")]
    vocabulary = Vocabulary.of(fragments, unit(7, 0))

    def found(**options: tuple[str, ...]) -> set[str]:
        ranker = FragmentRanker(vocabulary, RankOptions(**options))  # type: ignore[arg-type]
        return {each.text for each in ranker.merged(unit(1, 1), 9)[0]}

    everything = found()
    assert len(everything) == 7
    assert everything - found(exclude_terms=("*artstation*",)) == {"Trending on ArtStation", "artstation"}
    assert everything - found(exclude_terms=("ARTSTATION", " 8K ")) == {"artstation", "8k"}
    assert everything - found(exclude_terms=("greg rutkowski",)) == {"by Greg Rutkowski", "inspired by Greg Rutkowski"}
    assert everything - found(exclude_terms=("inspired by *",)) == {"inspired by Greg Rutkowski"}
    assert found(include_terms=("?k", "4k [*", "4k r")) == {"8k", "4k [raw]"}


@pytest.mark.parametrize("order", ["cosine", "percentile"])
def test_order_and_thresholds_against_brute_force(order: str) -> None:
    vocabulary, queries = random_vocabulary(calibrated=True), unit(3, 2)
    assert vocabulary.calibration is not None
    mask = of_kinds(vocabulary, "artist", "flavor", "medium")
    rows = np.arange(len(vocabulary.terms))
    options = [
        RankOptions(order=order),
        RankOptions(order=order, min_score=0.35),
        RankOptions(order=order, min_percentile=0.97),
        RankOptions(order=order, min_score=0.3, min_percentile=0.9),
        RankOptions(order=order, min_score=1.0),
    ]
    for each in options:
        for query, found in zip(queries, FragmentRanker(vocabulary, each).merged(queries, 60), strict=True):
            scores = (vocabulary.matrix.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
            percentiles = vocabulary.calibration.percentiles(rows, scores)
            passing = mask & (scores >= (each.min_score or -1)) & (percentiles >= (each.min_percentile or 0))
            keys = scores if order == "cosine" else percentiles
            expected = [row for row in np.lexsort((rows, -keys)).tolist() if passing[row]][:60]
            assert rows_of(found) == expected
            assert [one.percentile for one in found] == percentiles[expected].tolist()


def test_percentiles_make_kinds_comparable() -> None:
    """A kind whose terms are near every picture fills a list by cosine; by percentile it does not."""
    pictures = unit(400, 3) + 2 * unit(1, 4)
    common = normalise(2 * unit(1, 4) + 0.3 * unit(50, 5))
    rare = unit(50, 6)
    rare -= np.outer(rare @ unit(1, 4)[0], unit(1, 4)[0])
    fragments = [Fragment(f"{kind} {i}", kind) for kind in ("common", "rare") for i in range(50)]
    vocabulary = Vocabulary.of(fragments, normalise(np.concatenate([common, rare])))
    vocabulary.calibration = Calibration.fit(vocabulary.matrix, normalise(pictures[:300]))
    query = normalise(pictures[300:301] + 1.5 * rare[:1])
    by_cosine = FragmentRanker(vocabulary).merged(query, 10)[0]
    by_percentile = FragmentRanker(vocabulary, RankOptions(order="percentile")).merged(query, 10)[0]
    assert {each.fragment.kind for each in by_cosine} == {"common"}
    assert by_percentile[0].text == "rare 0"


def test_collapse_still_gives_k_results() -> None:
    base = unit(60, 0)
    rows = normalise(np.repeat(base, 50, axis=0) + 0.02 * unit(3000, 1))
    vocabulary = Vocabulary.of([Fragment(f"word{i}", "flavor") for i in range(3000)], rows)
    (found,) = FragmentRanker(vocabulary, RankOptions(collapse=0.9)).merged(unit(1, 2), 25)
    assert len({each.row // 50 for each in found}) == len(found) == 25
    (plain,) = FragmentRanker(vocabulary).merged(unit(1, 2), 3000)
    first = list({each.row // 50: each.row for each in reversed(plain)}.values())
    assert set(rows_of(found)) <= set(first), "of each group the best is kept"
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    (everything,) = FragmentRanker(vocabulary, RankOptions(collapse=0.9)).merged(unit(1, 2), 3000)
    assert len(everything) == 60


def test_duplicate_terms_collapse() -> None:
    vocabulary = Vocabulary.of(
        [Fragment("artstation", "trending"), Fragment("Artstation!", "flavor"), Fragment("photo", "flavor")], unit(3, 0)
    )
    (found,) = FragmentRanker(vocabulary, RankOptions(collapse=1.0)).merged(unit(1, 1), 9)
    assert len(found) == 2


def test_diversity_widens_the_list() -> None:
    base = unit(40, 0)
    vocabulary = Vocabulary.of(
        [Fragment(f"word{i}", "flavor") for i in range(400)],
        normalise(np.repeat(base, 10, axis=0) + 0.05 * unit(400, 1)),
    )
    query = unit(1, 2)
    plain = FragmentRanker(vocabulary).merged(query, 10)[0]
    diverse = FragmentRanker(vocabulary, RankOptions(diversity=0.3)).merged(query, 10)[0]
    assert plain == FragmentRanker(vocabulary, RankOptions(diversity=1.0)).merged(query, 10)[0]
    assert diverse[0] == plain[0]
    assert len({each.row // 10 for each in diverse}) > len({each.row // 10 for each in plain})


def test_the_policy_hides_terms() -> None:
    fragments = [Fragment("Ann Bell", "artist"), Fragment("style of ann bell", "flavor"), Fragment("photo", "flavor")]
    vocabulary = Vocabulary.of(fragments, unit(4, 0))
    ranker = FragmentRanker(vocabulary, policy=Policy(artists="none"))
    assert [each.text for each in ranker.merged(unit(1, 1), 9)[0]] == ["photo"]
    assert ranker.kinds == ("flavor",)
    assert ranker.clean("a cat, ann bell, photo") == "a cat, photo"


def test_scores_are_those_of_all_terms() -> None:
    vocabulary, queries = random_vocabulary(), unit(2, 2)
    ranker = FragmentRanker(vocabulary, RankOptions(kinds=("medium",)))
    np.testing.assert_allclose(ranker.scores(queries), queries @ vocabulary.matrix.T, atol=1e-6)
    assert ranker.scores(queries).dtype == np.float32


def test_an_empty_vocabulary_and_no_queries() -> None:
    ranker = FragmentRanker(Vocabulary.empty(DIM))
    assert ranker.merged(unit(2, 0), 3) == [[], []]
    assert ranker.per_kind(unit(2, 0), 3) == [{}, {}]
    assert FragmentRanker(random_vocabulary()).merged(np.zeros((0, DIM), np.float32), 3) == []


def test_what_is_asked_wrongly() -> None:
    vocabulary = random_vocabulary()
    ranker = FragmentRanker(vocabulary)
    with pytest.raises(QueryError, match="k is 0"):
        ranker.merged(unit(1, 0), 0)
    with pytest.raises(QueryError, match=r"shape \(1, 9\).*24 numbers"):
        ranker.merged(unit(1, 0, 9), 3)
    with pytest.raises(QueryError, match="not finite"):
        ranker.merged(np.full((1, DIM), np.nan, np.float32), 3)
    with pytest.raises(QueryError, match=r"'flavour'.*known kinds: artist"):
        ranker.merged(unit(1, 0), 3, ["flavour"])
    for options in (RankOptions(kinds=("x",)), RankOptions(exclude_kinds=("x",))):
        with pytest.raises(QueryError, match="kind 'x'"):
            FragmentRanker(vocabulary, options)
    with pytest.raises(QueryError, match=r"namespace 'x'.*known namespaces: stock"):
        FragmentRanker(vocabulary, RankOptions(namespaces=("x",)))
    for options in (RankOptions(order="percentile"), RankOptions(min_percentile=0.9)):
        with pytest.raises(QueryError, match="unprompt vocabulary calibrate"):
            FragmentRanker(vocabulary, options)
    for wrong in (
        {"order": "best"},
        {"min_score": 2.0},
        {"min_percentile": -0.1},
        {"collapse": 1.5},
        {"diversity": -1},
    ):
        with pytest.raises(QueryError, match="use "):
            RankOptions(**wrong)  # type: ignore[arg-type]


def test_with_an_encoder() -> None:
    encoder = FakeEncoder()
    texts = ["vivid red", "deep blue", "red"]
    vocabulary = Vocabulary.of([Fragment(text, "flavor") for text in texts], encoder.encode_texts(texts))
    (found,) = FragmentRanker(vocabulary).merged(encoder.encode_texts(["red"]), 2)
    assert [each.text for each in found] == ["red", "vivid red"]
    assert found[0].score == pytest.approx(1.0)
