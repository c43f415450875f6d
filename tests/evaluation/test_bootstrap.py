from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unprompt.evaluation import bootstrap as module
from unprompt.evaluation.bootstrap import bootstrap, compare
from unprompt.evaluation.metrics.bleu import bleu
from unprompt.evaluation.metrics.scores import EvaluationError, Scores, mean_scores

NORMAL = np.random.default_rng(3).standard_normal(400)


def scores(values: object) -> Scores:
    return mean_scores("x", values)  # type: ignore[arg-type]


class TestBootstrap:
    def test_equal_values_leave_no_doubt(self) -> None:
        interval = bootstrap(scores([0.5] * 9))
        assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)

    def test_agrees_with_the_normal_interval(self) -> None:
        interval = bootstrap(scores(NORMAL), resamples=4000)
        half = 1.96 * NORMAL.std() / 20
        assert interval.low == pytest.approx(NORMAL.mean() - half, abs=0.1 * half)
        assert interval.high == pytest.approx(NORMAL.mean() + half, abs=0.1 * half)

    def test_covers_the_truth_about_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(0)
        covered = 0
        for _ in range(200):
            interval = bootstrap(scores(rng.standard_normal(50)), resamples=300, rng=rng)
            covered += interval.low <= 0 <= interval.high
        assert 180 <= covered <= 198  # 95 % of 200 is 190, its standard deviation 3

    def test_a_seed_is_a_result(self) -> None:
        assert bootstrap(scores(NORMAL), rng=1) == bootstrap(scores(NORMAL), rng=1)
        assert bootstrap(scores(NORMAL), rng=1) != bootstrap(scores(NORMAL), rng=2)

    @pytest.mark.parametrize("block", [1, 1000, 10**9])
    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
        expected = bootstrap(scores(NORMAL[:50]), resamples=99)
        monkeypatch.setattr(module, "_BLOCK", block)
        assert bootstrap(scores(NORMAL[:50]), resamples=99) == expected

    def test_corpus_metrics_are_computed_anew(self) -> None:
        sacrebleu = pytest.importorskip("sacrebleu")
        candidates = ["a b c d e", "a b x d e", "p q r s t u", "k l m n", "one two three four five"]
        references = ["a b c d f", "a b c d e", "p q r s t u v", "k l n m", "one two three four six"]
        rows = np.random.default_rng(7).integers(0, 5, (60, 5))
        naive = [
            sacrebleu.corpus_bleu([candidates[i] for i in row], [[references[i] for i in row]]).score
            for row in rows.tolist()
        ]
        interval = bootstrap(bleu(candidates, references), resamples=60, rng=7)
        assert [interval.low, interval.high] == pytest.approx(np.quantile(naive, [0.025, 0.975]).tolist())

    def test_groups_are_drawn_whole(self) -> None:
        # A hundred copies of each of four values are four draws, not four hundred.
        values, labels = np.repeat([0.0, 1.0, 0.0, 1.0], 100), np.repeat([3, 1, 7, 5], 100)
        alone, grouped = bootstrap(scores(values)), bootstrap(scores(values), groups=labels)
        assert grouped.value == alone.value == 0.5
        assert alone.high - alone.low < 0.12
        assert (grouped.low, grouped.high) == (0, 1)
        assert bootstrap(scores(NORMAL), groups=range(400)) == bootstrap(scores(NORMAL))

    def test_items_without_a_verdict(self) -> None:
        interval = bootstrap(scores([1, np.nan, np.nan, 1]))
        assert (interval.value, interval.low, interval.high) == (1, 1, 1)
        assert np.isnan(bootstrap(scores([np.nan, np.nan])).low)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resamples": 0}, "use 1 or more of each"),
            ({"level": 1.0}, "a share between 0 and 1"),
            ({"groups": [1]}, r"groups of shape \(1,\) for 2 items"),
        ],
    )
    def test_bad_arguments(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(EvaluationError, match=message):
            bootstrap(scores([1, 2]), **options)  # type: ignore[arg-type]


class TestCompare:
    def test_a_system_does_not_differ_from_itself(self) -> None:
        found = compare(scores(NORMAL), scores(NORMAL))
        assert (found.difference, found.interval.low, found.interval.high, found.p) == (0, 0, 0, 1)

    def test_pairing_sees_what_intervals_of_each_do_not(self) -> None:
        better = scores(NORMAL + 0.05)
        found = compare(better, scores(NORMAL), permutations=999)
        assert found.difference == pytest.approx(0.05)
        assert found.interval.low > 0
        assert found.p == 1 / 1000
        alone = bootstrap(better)
        assert alone.low < NORMAL.mean() < alone.high

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
    def test_p_is_the_share_of_all_swaps(self, pairs: list[tuple[int, int]]) -> None:
        a, b = np.array(pairs, dtype=np.float64).T
        swaps = np.array(list(itertools.product([1, -1], repeat=len(pairs))))
        exact = (np.abs((swaps * (a - b)).mean(axis=1)) >= abs((a - b).mean()) - 1e-12).mean()
        found = compare(scores(a), scores(b), permutations=4000, resamples=1)
        assert found.p == pytest.approx(exact, abs=0.04)

    def test_corpus_metrics(self) -> None:
        pytest.importorskip("sacrebleu")
        references = [f"the {i} cat sat on the {i} mat by the door" for i in range(30)]
        good, bad = [text.replace("door", "wall") for text in references], ["the cat sat"] * 30
        found = compare(bleu(good, references), bleu(bad, references), permutations=499, resamples=100)
        assert found.p == 1 / 500
        assert found.interval.low > 0
        mirrored = compare(bleu(bad, references), bleu(good, references), permutations=499, resamples=100)
        assert mirrored.difference == -found.difference
        assert mirrored.p == found.p

    def test_groups_are_swapped_whole(self) -> None:
        a, b = scores([1.0] * 300), scores([0.0] * 300)
        assert compare(a, b, permutations=999).p == 1 / 1000
        # Three groups allow eight swaps, two of which are as extreme.
        grouped = compare(a, b, groups=np.repeat([0, 1, 2], 100), permutations=4000)
        assert grouped.p == pytest.approx(0.25, abs=0.03)

    def test_no_verdict_is_no_p(self) -> None:
        found = compare(scores([np.nan, np.nan]), scores([1, 2]))
        assert np.isnan([found.difference, found.p, found.interval.low]).all()

    def test_only_like_is_compared(self) -> None:
        with pytest.raises(EvaluationError, match="cannot compare 1 of x with 2 of x"):
            compare(scores([1]), scores([1, 2]))
        with pytest.raises(EvaluationError, match="cannot compare 1 of x with 1 of y"):
            compare(scores([1]), mean_scores("y", [1]))
