from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from fakes import FakeEncoder, normalise, word_vector
from unprompt.index.vocabulary import FORMS, PLAIN, Vocabulary
from unprompt.search.budget import TokenBudget
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.modes.classic import draft_classic
from unprompt.search.modes.common import Piece, measure
from unprompt.search.modes.default import KIND_LIMITS, MAX_FRAGMENTS, MIN_GAIN, OPTIONS
from unprompt.search.modes.fast import draft_fast
from unprompt.search.policy import Policy
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranker import FragmentRanker
from unprompt.search.words import holds_words
from unprompt.types import Candidate, Embeddings, Fragment, Part

DIM = 64
LISTS = {
    "artist": ["Claude Monet", "Edvard Munch", "Hokusai"],
    "medium": ["an oil painting", "a photo", "a sketch"],
    "movement": ["impressionism", "art deco"],
    "trending": ["trending on pixiv", "flickr"],
    "flavor": [f"flavor{i} tint{i % 7}" for i in range(30)] + ["", "Flavor1, tint1!", "flavor2 tint2"],
    "negative": ["ugly", "blurry", "bad hands"],
}


vector = cache(word_vector)


class Encoder(FakeEncoder):
    """The fake encoder, quicker: it remembers the words."""

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        split = [text.lower().replace(",", " ").split() or ["(nothing)"] for text in texts]
        rows = [np.sum([vector(word, self.dim) for word in words], axis=0) for words in split]
        return normalise(np.array(rows)) if rows else np.zeros((0, self.dim), np.float32)


def count_words(texts: Sequence[str]) -> list[int]:
    """A word is a token, and so is every separator."""
    return [len(text.replace(",", " , ").split()) for text in texts]


def budget(limit: int | None = 75) -> TokenBudget:
    return TokenBudget("words", limit, 0, count_words)


def vocabulary_of(lists: dict[str, list[str]]) -> Vocabulary:
    fragments = [Fragment(text, kind, "list.txt") for kind, texts in lists.items() for text in texts]
    terms = [form.replace("{}", each.text) for each in fragments for form in FORMS.get(each.kind, PLAIN)]
    return Vocabulary.of(fragments, Encoder(DIM).encode_texts(terms))


VOCABULARY = vocabulary_of(LISTS)


def subject(text: str | None) -> Part | None:
    return None if text is None else Part(text, "neighbour:1", "subject", 0.0)


def task_of(
    targets: Sequence[str],
    subjects: Sequence[str | None],
    ranker: FragmentRanker | None = None,
    limit: int | None = 75,
    encode: Callable[[Sequence[str]], Embeddings] | None = None,
) -> ComposeInput:
    encoder = Encoder(DIM)
    return ComposeInput(
        queries=encoder.encode_texts(targets),
        subjects=[subject(text) for text in subjects],
        ranker=ranker or FragmentRanker(VOCABULARY),
        encode_texts=encode or encoder.encode_texts,
        budget=budget(limit),
    )


def compose(mode: str, target: str, start: str | None, **options: object) -> Candidate:
    return MODES[mode](task_of([target], [start], **options))[0]  # type: ignore[arg-type]


def cosine(text: str, target: str) -> float:
    return float(np.dot(*Encoder(DIM).encode_texts([text, target]).astype(np.float64)))


TARGETS = [
    "dog an oil painting by Claude Monet impressionism flavor1 tint1 flavor8",
    "cat flavor3 tint3 flavor20 tint6 a photo flickr",
    "ship by Hokusai",
]


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


def test_fast_takes_the_best_terms_in_order() -> None:
    found = compose("fast", TARGETS[0], "a dog", limit=None)
    assert found.parts[0].text == "a dog"
    scores = [part.score for part in found.parts[1:]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 32
    assert found.prompt == ", ".join(part.text for part in found.parts)


def test_classic_has_its_layout() -> None:
    found = compose("classic", TARGETS[0], "a dog")
    assert [part.kind for part in found.parts] == [
        "subject", "medium", "artist", "trending", "movement", "flavor", "flavor", "flavor",
    ]  # fmt: skip
    assert found.prompt.startswith("a dog, an oil painting by Claude Monet, ")
    assert found.prompt.count(",") == 6


def test_classic_does_not_say_the_medium_twice() -> None:
    found = compose("classic", TARGETS[0], "an oil painting of a dog")
    assert found.prompt.count("oil painting") == 1


class Counting:
    """Encodes, and keeps what it encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Embeddings:
        self.texts += texts
        return Encoder(DIM).encode_texts(texts)


@pytest.mark.parametrize("mode", ["fast", "classic"])
def test_modes_without_a_search_encode_the_subject_and_the_prompt(mode: str) -> None:
    encode = Counting()
    found = compose(mode, TARGETS[0], "a dog", encode=encode)
    assert sorted(encode.texts) == sorted(["a dog", found.prompt])
    encode.texts.clear()
    assert compose(mode, TARGETS[0], None, encode=encode).prompt == encode.texts[0]
    encode.texts.clear()
    MODES[mode](task_of(TARGETS[:1] * 3, ["a dog", "a dog", None], encode=encode))
    assert len(encode.texts) == 3


@pytest.mark.parametrize(("mode", "draft"), [("fast", draft_fast), ("classic", draft_classic)])
@pytest.mark.parametrize("start", ["a dog", None])
def test_estimated_gains_are_near_measured_ones(
    mode: str, draft: Callable[[ComposeInput, Sequence[Part | None]], list[list[Piece]]], start: str | None
) -> None:
    task = task_of(TARGETS, [start] * len(TARGETS))
    estimated = MODES[mode](task)
    for own, true in zip(estimated, measure(task, draft(task, task.starts())), strict=True):
        assert [(part.text, part.score) for part in own.parts] == [(part.text, part.score) for part in true.parts]
        assert (own.prompt, own.score) == (true.prompt, true.score)
        assert own.parts[0].gain == pytest.approx(true.parts[0].gain, abs=2e-6)
        gains = np.array([[part.gain for part in each.parts[1:]] for each in (own, true)])
        assert np.corrcoef(gains)[0, 1] > 0.9


def test_a_single_estimated_gain_is_the_measured_one() -> None:
    task = task_of(TARGETS[:2], ["a dog", None], ranker=FragmentRanker(vocabulary_of({"flavor": ["flavor1 tint1"]})))
    assert MODES["fast"](task) == measure(task, draft_fast(task, task.starts()))


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


def test_default_takes_only_fragments_that_earn_their_place() -> None:
    for target in TARGETS:
        found = compose("default", target, "a dog")
        fragments = found.parts[1:]
        assert len(fragments) <= MAX_FRAGMENTS
        for kind, limit in KIND_LIMITS.items():
            assert sum(part.kind == kind for part in fragments) <= limit
        for left_out in fragments:
            rest = ", ".join(part.text for part in found.parts if part is not left_out)
            assert found.score - cosine(rest, target) >= MIN_GAIN - 2e-4
    assert compose("default", "dog", "a dog").prompt == "a dog"


def test_default_encodes_few_of_the_prompts_it_might_and_finds_as_good_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def encode(texts: Sequence[str]) -> Embeddings:
        calls.extend(texts)
        return Encoder(DIM).encode_texts(texts)

    few = [compose("default", target, start, encode=encode) for target in TARGETS for start in ("a dog", None)]
    encoded = len(calls)
    every = 10**6
    exhaustive = replace(OPTIONS, first=every, explored=every, survivors=every, refined=every)
    monkeypatch.setattr("unprompt.search.modes.default.OPTIONS", exhaustive)
    calls.clear()
    best = [compose("default", target, start, encode=encode) for target in TARGETS for start in ("a dog", None)]
    assert encoded < 0.7 * len(calls)
    assert [each.score for each in few] == pytest.approx([each.score for each in best], abs=MIN_GAIN)


def test_default_ignores_fragments_that_fit_every_picture() -> None:
    from unprompt.index.calibration import Calibration

    encoder = Encoder(DIM)
    fragments = [Fragment("flavor1 tint1", "flavor"), Fragment("flavor2 tint2", "flavor")]
    matrix = encoder.encode_texts([each.text for each in fragments])
    # Every reference picture shows the first flavor more than the query does.
    reference = encoder.encode_texts([f"flavor1 tint1 thing{i}" for i in range(40)])
    calibrated = Vocabulary.of(fragments, matrix)
    calibrated.calibration = Calibration.fit(matrix, reference)
    target = "dog cat flavor1 tint1 flavor2 tint2"
    assert (
        "flavor1" in compose("default", target, "dog", ranker=FragmentRanker(Vocabulary.of(fragments, matrix))).prompt
    )
    found = compose("default", target, "dog", ranker=FragmentRanker(calibrated))
    assert found.prompt == "dog, flavor2 tint2"


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


def test_the_starting_similarity_is_negated_too() -> None:
    # All cosines are above zero, where a start that is not negated beats whatever comes after it.
    flavors = [f"flavor{i}" for i in range(30)]
    ranker = FragmentRanker(vocabulary_of({"flavor": flavors}))
    shown = [word for word in flavors for _ in range(3)]
    target = " ".join(shown)
    found = compose("negative", target, None, ranker=ranker)
    assert len(found.parts) == 1 or found.score < found.parts[0].score
    lowest = min(cosine(text, target) for text in flavors)
    assert found.score <= lowest + 1e-6
    apart = compose("negative", " ".join(flavors[:10]), None, ranker=ranker)
    assert len(apart.parts) > 1
    assert apart.score < apart.parts[0].score


def test_negative_takes_the_least_similar_flavors_to_the_last_stage_of_a_long_list() -> None:
    rng = np.random.default_rng(0)
    flavors = [f"w{a} w{b}" for a, b in product(range(50), range(50)) if a < b]
    rng.shuffle(flavors)
    vocabulary = vocabulary_of({"flavor": flavors, "negative": ["ugly"]})
    ranker = FragmentRanker(vocabulary)
    target = "w1 w2 w3 w4 w5 w6"
    found = compose("negative", target, None, ranker=ranker)
    scores = np.sort(ranker.scores(Encoder(DIM).encode_texts([target]))[0])
    assert found.score < scores[0]
    assert all(part.score < 0 for part in found.parts)


def test_results_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import test_modes as t\n"
        "for mode in t.MODES:\n"
        "    print(mode, [(c.prompt, c.score) for c in t.MODES[mode](t.task_of(t.TARGETS, ['a dog', None, 'x']))])\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])  # noqa: PTH120
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
