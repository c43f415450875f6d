from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import normalise
from unprompt.encoders.training.data import prompt_group, split_of
from unprompt.evaluation import splits
from unprompt.evaluation.metrics.fragments import artists_of
from unprompt.evaluation.metrics.scores import EvaluationError
from unprompt.evaluation.splits import (
    group_key,
    join_labels,
    near_groups,
    split_at_random,
    split_by_artist,
    split_by_near_prompt,
    split_by_prompt,
)

DATA = Path(__file__).parents[3] / "shared" / "data"


def same_grouping(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


class TestKeys:
    @given(st.text(st.characters(max_codepoint=127), min_size=1))
    def test_latin_keys_are_the_prompt_groups(self, prompt: str) -> None:
        assert group_key(prompt) == (prompt_group(prompt) or prompt.strip())

    def test_by_hand(self) -> None:
        assert group_key("Café, by Monet!") == group_key("by monet cafe") == "by cafe monet"
        assert group_key("кот, собака") == group_key("Собака кот")
        assert group_key("кот cat") != group_key("пёс cat")
        assert group_key("猫") != group_key("犬")

    def test_words_of_every_script_tell_prompts_apart(self) -> None:
        words = [f"{a}{b}" for a in "котпёслиса" for b in "собакарыб"]
        assert len({prompt_group(word) for word in words}) == len({*words})
        assert {split_of(word) for word in words} == {"train", "dev", "test"}
        assert prompt_group("стиль midjourney") != prompt_group("midjourney")
        assert split_of("стиль midjourney") == split_of("midjourney")  # as the weights had it
        assert prompt_group("Peder Krøyer") == prompt_group("peder kr\u00f8yer") == "kryer peder"

    @given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, max_size=5), st.randoms())
    def test_a_group_is_in_one_split(self, words: list[str], random: object) -> None:
        shuffled = list(words)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        one, other = " ".join(words), ", ".join(shuffled).upper().lower()
        if prompt_group(one) == prompt_group(other):
            assert split_of(one) == split_of(other)

    @pytest.mark.skipif(not DATA.is_dir(), reason="needs the pictures in ../shared")
    def test_the_split_of_the_packaged_weights_never_changes(self) -> None:
        rows = [
            json.loads(line) for table in DATA.glob("*/pairs.jsonl") for line in table.read_text("utf-8").splitlines()
        ]
        splits = [f"{prompt}\0{split_of(prompt)}\n" for prompt in sorted({row["prompt"] for row in rows})]
        digest = hashlib.sha256("".join(splits).encode()).hexdigest()
        assert digest == "4b24c6ace7b8ca04251fc291418a492f47280a369292640d3943dd8735c5cff7"

    @given(st.text())
    def test_keys_are_their_own_keys(self, prompt: str) -> None:
        assert group_key(group_key(prompt)) == group_key(prompt)


class TestNearGroups:
    def test_chains_are_one_group(self) -> None:
        # Cosines of neighbours on this arc are cos(40 degrees) = 0.766, those two steps apart 0.174.
        angles = np.deg2rad([0, 40, 80, 180, 220])
        labels = near_groups(normalise(np.stack([np.cos(angles), np.sin(angles)], axis=1)), 0.7)
        assert same_grouping(labels, np.array([0, 0, 0, 1, 1]))

    @pytest.mark.parametrize("block", [1, 37, 10_000])
    @pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
    def test_against_a_walk_through_all_pairs(
        self, monkeypatch: pytest.MonkeyPatch, block: int, threshold: float
    ) -> None:
        monkeypatch.setattr(splits, "_BLOCK", block)
        rows = normalise(np.random.default_rng(block).standard_normal((60, 6)))
        near = (rows.astype(np.float64) @ rows.T.astype(np.float64)) >= threshold
        naive = np.full(60, -1)
        for start in range(60):
            waiting = [start] if naive[start] < 0 else []
            while waiting:
                row = waiting.pop()
                naive[row] = start
                waiting += [i for i in np.flatnonzero(near[row]).tolist() if naive[i] < 0]
        assert same_grouping(near_groups(rows, threshold), naive)

    def test_pairs_at_the_threshold_count(self) -> None:
        rows = np.array([[1, 0], [0.6, 0.8]], np.float32)
        exact = float(rows[0].astype(np.float64) @ rows[1].astype(np.float64))
        assert len(set(near_groups(rows, exact).tolist())) == 1
        assert len(set(near_groups(rows, np.nextafter(exact, 1)).tolist())) == 2

    @pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
    def test_threshold_out_of_range(self, threshold: float) -> None:
        with pytest.raises(EvaluationError, match="near-duplicate threshold"):
            near_groups(np.eye(2, dtype=np.float32), threshold)

    def test_nothing(self) -> None:
        assert near_groups(np.zeros((0, 4), np.float32)).tolist() == []
        assert split_by_near_prompt([]) == split_by_artist([]) == split_by_prompt([]) == []


def test_joined_groupings() -> None:
    joined = join_labels(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8]))
    assert same_grouping(joined, np.array([0, 0, 0, 1, 2]))


class TestByPrompt:
    def test_is_the_split_of_the_weights(self) -> None:
        prompts = [f"picture {i}" for i in range(40)]
        assert split_by_prompt(prompts) == [split_of(prompt) for prompt in prompts]

    def test_near_duplicates_are_in_one_split_whatever_the_order(self) -> None:
        prompts = [f"{colour} {i}" for i in range(60) for colour in ("red", "blue")] + ["1 red", "Red, 1!"]
        number = [int("".join(filter(str.isdigit, prompt))) for prompt in prompts]
        embeddings = normalise(np.eye(60)[number])  # near are those of one number
        found = split_by_near_prompt(prompts, embeddings)
        by_number = {(n, split) for n, split in zip(number, found, strict=True)}
        assert len(by_number) == 60
        assert set(found) == {"train", "dev", "test"}
        order = np.random.default_rng(0).permutation(len(prompts))
        shuffled = split_by_near_prompt([prompts[i] for i in order], embeddings[order])
        assert shuffled == [found[i] for i in order]

    def test_a_prompt_without_near_ones_is_where_the_weights_had_it(self) -> None:
        prompts = [f"picture {i}" for i in range(50)]
        assert split_by_near_prompt(prompts, normalise(np.eye(50))) == split_by_prompt(prompts)

    def test_a_group_of_most_prompts_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        split_by_near_prompt(["a", "b", "c", "C!", "C?"], normalise(np.eye(3)[[0, 0, 1, 1, 1]]))
        assert "one near-duplicate group holds 2 of 3 distinct prompts at cosine 0.7" in caplog.messages[0]
        split_by_near_prompt(["a", "b", "c", "d"], normalise(np.eye(3)[[0, 0, 1, 2]]))
        assert len(caplog.messages) == 1

    def test_the_sentence_encoder_is_the_default(self) -> None:
        prompts = ["a cat sitting on a mat", "a cat sits on the mat", "stock market report"]
        labels = splits.near_prompt_groups(prompts, None)
        assert same_grouping(labels, np.array([0, 0, 1]))

    def test_embeddings_that_do_not_fit(self) -> None:
        with pytest.raises(EvaluationError, match="2 embeddings of 1 prompts"):
            split_by_near_prompt(["a"], normalise(np.eye(2)))


class TestByArtist:
    def test_no_artist_is_in_two_splits(self) -> None:
        names = [f"{first} {last}" for first in ("Claude", "Alphonse", "Vincent", "Paul") for last in "ABCDEFGHIJ"]
        prompts = [f"{what} by {name}" for what in ("a dog", "a cat") for name in names]
        found = split_by_artist(prompts)
        homes: dict[str, set[str]] = {}
        for prompt, split in zip(prompts, found, strict=True):
            assert artists_of(prompt)
            for artist in artists_of(prompt):
                homes.setdefault(artist, set()).add(split)
        assert all(len(home) == 1 for home in homes.values())
        assert set(found) == {"train", "dev", "test"}

    def test_artists_named_together_stay_together(self) -> None:
        prompts = ["a by Claude Monet and Alphonse Mucha", "b by Alphonse Mucha", "c by Claude Monet", "d", "D!"]
        found = split_by_artist(prompts)
        assert found[0] == found[1] == found[2]
        assert found[3] == found[4]


class TestAtRandom:
    def test_shares_are_exact_and_order_does_not_matter(self) -> None:
        ids = [f"picture-{i}" for i in range(1000)]
        found = split_at_random(ids)
        assert Counter(found) == {"train": 900, "dev": 50, "test": 50}
        assert split_at_random(ids[::-1]) == found[::-1]
        assert Counter(split_at_random(ids[:39])) == {"train": 37, "dev": 1, "test": 1}

    def test_seeds_differ(self) -> None:
        ids = [str(i) for i in range(200)]
        assert split_at_random(ids, seed=0) == split_at_random(ids, seed=0) != split_at_random(ids, seed=1)

    def test_stays_as_it_is_from_release_to_release(self) -> None:
        found = split_at_random([str(i) for i in range(20)], shares=(0.5, 0.25, 0.25))
        assert [i for i, split in enumerate(found) if split == "test"] == [1, 4, 8, 14, 18]

    def test_bad_arguments(self) -> None:
        with pytest.raises(EvaluationError, match="three that add up to 1"):
            split_at_random(["a"], shares=(0.5, 0.5, 0.5))
        with pytest.raises(EvaluationError, match="id 'a' is there twice"):
            split_at_random(["a", "b", "a"])
