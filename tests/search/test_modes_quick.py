from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from compose_tasks import (
    TARGETS,
    Counting,
    calibrated,
    compose,
    task_of,
    vocabulary_of,
)
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.modes.classic import draft_classic
from unprompt.search.modes.common import Piece, measure
from unprompt.search.modes.fast import draft_fast
from unprompt.search.modes.wording import is_scrap, new_words
from unprompt.search.rank_options import RankOptions
from unprompt.search.ranker import FragmentRanker
from unprompt.search.results import ScoredFragment
from unprompt.types import Fragment, Part


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


def test_classic_leaves_a_place_empty_that_nothing_fits_where_the_vocabulary_is_calibrated() -> None:
    lists = {"medium": ["photo paper", "oil painting"], "movement": ["art deco"], "flavor": ["flavor1 tint1"]}
    # Nearly every reference picture is more of a photo than the query; few have the flavor.
    shown = [f"photo paper thing{i}" for i in range(60)] + [f"flavor1 thing{i}" for i in range(2)]
    target = "dog photo flavor1 tint1"
    plain = compose("classic", target, "dog", ranker=FragmentRanker(vocabulary_of(lists)))
    assert [part.kind for part in plain.parts] == ["subject", "medium", "movement", "flavor"]
    found = compose("classic", target, "dog", ranker=FragmentRanker(calibrated(vocabulary_of(lists), shown)))
    kinds = [part.kind for part in found.parts]
    assert "medium" not in kinds
    assert "flavor" in kinds
    assert ", ," not in found.prompt


def test_classic_says_something_even_where_nothing_fits() -> None:
    vocabulary = calibrated(vocabulary_of({"medium": ["a photo"]}), [f"photo thing{i}" for i in range(40)])
    assert compose("classic", "photo dog cat ship", None, ranker=FragmentRanker(vocabulary)).prompt == "a photo"


@pytest.mark.parametrize("mode", ["fast", "classic", "best"])
def test_scraps_of_prompts_are_composed_only_where_the_cosine_alone_counts(mode: str) -> None:
    ranker = FragmentRanker(vocabulary_of({"flavor": ["cat )", "cat: 1.2", "red ship"]}))
    assert "cat" in compose(mode, "dog cat cat ship", "dog", ranker=ranker).prompt
    ranker = FragmentRanker(ranker.vocabulary, RankOptions(collapse=0.95))
    assert compose(mode, "dog cat cat ship", "dog", ranker=ranker).prompt == "dog, red ship"


def ranked(*texts: str, kind: str = "flavor") -> list[ScoredFragment]:
    return [ScoredFragment(text, Fragment(text, kind), row, 0.5, None) for row, text in enumerate(texts)]


def test_new_words_are_those_that_were_not_said_yet() -> None:
    terms = ranked("elegant woman", "old woman", "old elegant red woman", "the elegant woman!", "woman in red", "hair")
    as_ranked = [each.text for each in new_words("a dog", terms, 9)]
    assert as_ranked == ["elegant woman", "old woman", "old elegant red woman", "woman in red", "hair"]
    assert [each.text for each in new_words("a dog", terms, 9, 0.5)] == [
        "elegant woman", "old woman", "woman in red", "hair",
    ]  # fmt: skip
    assert [each.text for each in new_words("a dog", terms, 9, 0.6)] == ["elegant woman", "hair"]
    assert [each.text for each in new_words("old woman", terms, 2, 0.5)] == ["elegant woman", "woman in red"]


def test_names_of_artists_are_no_scraps() -> None:
    assert [each.text for each in new_words("", ranked('S J "Lamorna" Birch', kind="artist"), 1, 0.5)]
    assert not list(new_words("", ranked('S J "Lamorna" Birch'), 1, 0.5))


def test_a_medium_that_wants_more_words_is_no_medium_for_an_artist() -> None:
    lists = {"medium": ["an illustration of", "a sketch"], "artist": ["Claude Monet"]}
    ranker = FragmentRanker(vocabulary_of(lists), RankOptions(collapse=0.95))
    found = compose("classic", "illustration illustration sketch by Claude Monet", None, ranker=ranker)
    assert found.prompt == "a sketch by Claude Monet"


@pytest.mark.parametrize(
    "text",
    ["facial features )", "( ( ( buses", "unreal engine: .2", "skin : tjalf sparnaay", "mc escher!!", "colorful]",
     "loish |", "bokeh”", "unreal engine ;", "soft light. high details", "an illustration of", "!! low contrast",
     "- w 7 6 8", "villages ， snow"],
)  # fmt: skip
def test_scraps(text: str) -> None:
    assert is_scrap(text)


@pytest.mark.parametrize(
    "text",
    ["f / 2.8", "still from star wars (1977)", "by M. C. Escher", "3/4 view", "1980's movie poster", "b&w", "sci - fi",
     "zdzisław beksiński", "(screen print)", "glowing details!", "h.r. giger", "of a woman", "16 mm"],
)  # fmt: skip
def test_what_is_no_scrap(text: str) -> None:
    assert not is_scrap(text)
