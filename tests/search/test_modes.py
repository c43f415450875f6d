from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import product

import pytest

from compose_tasks import (
    DIM,
    LISTS,
    TARGETS,
    VOCABULARY,
    Encoder,
    budget,
    compose,
    cosine,
    count_words,
    task_of,
)
from unprompt.index.vocabulary import Vocabulary
from unprompt.search.modes import MODES
from unprompt.search.policy import Policy
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranker import FragmentRanker
from unprompt.search.words import holds_words
from unprompt.types import Candidate, Embeddings


@pytest.mark.parametrize(("mode", "start"), list(product(MODES, ["a dog", None])))
def test_every_mode_gives_scored_parts_within_the_budget(mode: str, start: str | None) -> None:
    for target, limit in product(TARGETS, [None, 75, 12, 5]):
        found = compose(mode, target, start, limit=limit)
        assert found.parts
        assert found.score == pytest.approx(cosine(found.prompt, target), abs=3e-6)
        assert sum(part.gain for part in found.parts) == pytest.approx(found.score, abs=3e-6)
        assert budget(limit).fits([found.prompt]) == [True]
        prompt = ""
        for part in found.parts:
            assert part.score == pytest.approx(cosine(part.text, target), abs=3e-6)
            assert part.source == ("neighbour:1" if part.kind == "subject" else "vocabulary:list.txt")
            assert not holds_words(prompt, part.text)
            assert part.text in found.prompt
            prompt += f", {part.text}"
        if mode != "negative":
            assert (found.parts[0].kind == "subject") == (start is not None)
            assert not any(part.kind == "negative" for part in found.parts)


@pytest.mark.parametrize("mode", MODES)
def test_batches_change_nothing(mode: str) -> None:
    starts = ["a dog", None, "a dog"]
    together = MODES[mode](task_of(TARGETS, starts))
    alone = [compose(mode, target, start) for target, start in zip(TARGETS, starts, strict=True)]
    assert [found.prompt for found in together] == [found.prompt for found in alone]
    assert MODES[mode](task_of([], [])) == []


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_vocabulary_leaves_the_subject(mode: str) -> None:
    ranker = FragmentRanker(Vocabulary.empty(DIM))
    left = "" if mode == "negative" else "a dog"
    assert compose(mode, "dog", "a dog", ranker=ranker).prompt == left
    assert compose(mode, "dog", None, ranker=ranker) == Candidate("", 0.0, ())


@pytest.mark.parametrize("mode", MODES)
def test_policies_and_options_hold_in_every_mode(mode: str) -> None:
    ranker = FragmentRanker(VOCABULARY, RankOptions(exclude_kinds=("medium",)), Policy(artists="none"))
    found = compose(mode, TARGETS[0], "a dog by Claude Monet", ranker=ranker)
    assert "Monet" not in found.prompt
    assert not {"artist", "medium"} & {part.kind for part in found.parts}


@pytest.mark.parametrize("mode", MODES)
def test_a_subject_over_the_budget_is_cut(mode: str) -> None:
    found = compose(mode, "dog", "dog, one two three, four five six seven", limit=5)
    assert budget(5).fits([found.prompt]) == [True]
    assert mode == "negative" or found.prompt.startswith("dog, one two three")


def test_best_is_no_worse_than_any_other_mode_or_the_subject() -> None:
    for target, start in product(TARGETS, ["a dog", "a cat, flavor3 tint3", None]):
        best = compose("best", target, start)
        for mode in ("fast", "classic"):
            assert best.score >= compose(mode, target, start).score - 2e-6
        assert start is None or best.score >= cosine(start, target) - 2e-6


def test_best_encodes_once_a_round_for_all_pictures() -> None:
    calls: list[int] = []
    encoder = Encoder(DIM)

    def encode(texts: Sequence[str]) -> Embeddings:
        calls.append(len(texts))
        return encoder.encode_texts(texts)

    MODES["best"](task_of(TARGETS, ["a dog", "a cat", "a ship"], encode=encode))
    together = len(calls)
    calls.clear()
    for target, start in zip(TARGETS, ["a dog", "a cat", "a ship"], strict=True):
        MODES["best"](task_of([target], [start], encode=encode))
    assert together < len(calls) / 2


# What clip-interrogator 0.6 gets wrong.


def test_blank_and_repeated_terms_are_never_composed() -> None:
    target = "flavor1 tint1 flavor2 tint2"
    collapsed = FragmentRanker(VOCABULARY, RankOptions(collapse=0.95))
    for mode in MODES:
        found = compose(mode, target, "a dog", ranker=collapsed)
        assert all(part.text.strip() for part in found.parts)
        assert ", ," not in found.prompt
        words = [" ".join(part.text.lower().replace(",", "").replace("!", "").split()) for part in found.parts]
        assert len(set(words)) == len(words)
    # Without collapsing, "best" may say the same words in another form; the very same term it may not.
    texts = [part.text.strip() for part in compose("best", target, "a dog").parts]
    assert len(set(texts)) == len(texts)


def test_separators_count_against_the_budget() -> None:
    # Each term is two tokens and each separator one: without those, eight would pass as twenty-two.
    for mode in ("fast", "best"):
        found = compose(mode, " ".join(LISTS["flavor"][:20]), "dog", limit=22)
        assert count_words([found.prompt])[0] <= 22
        assert len(found.prompt.replace(",", " ").split()) <= 15


def test_results_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import compose_tasks as t\n"
        "for mode in t.MODES:\n"
        "    print(mode, [(c.prompt, c.score) for c in t.MODES[mode](t.task_of(t.TARGETS, ['a dog', None, 'x']))])\n"
    )
    path = os.pathsep.join(sys.path)
    outputs = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        outputs.add(run.stdout)
    assert len(outputs) == 1
    assert "best" in outputs.pop()


def test_a_subject_is_needed_for_each_picture() -> None:
    with pytest.raises(ValueError, match="3 queries came with 1 subjects"):
        task_of(TARGETS, ["a dog"])
