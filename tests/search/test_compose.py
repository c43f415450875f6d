from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeEncoder
from unprompt.search.compose import MAX_FRAGMENTS, MAX_WORDS, MIN_GAIN, compose, holds_words
from unprompt.search.results import RankedPrompt, ScoredFragments
from unprompt.types import Candidate, Fragment

WORDS = ["red", "dog", "oil", "painting", "photo", "moody", "light", "sunset", "sketch", "sea"]
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
pools = st.dictionaries(
    st.sampled_from(["artist", "medium", "flavor", "negative", "negative-hands"]),
    st.lists(phrases, max_size=5, unique=True),
    max_size=4,
)
cases = st.tuples(phrases, st.none() | phrases, pools)


def pool(**kinds: list[str]) -> ScoredFragments:
    return {kind: [(Fragment(text, kind, "list.txt"), 0.5) for text in texts] for kind, texts in kinds.items()}


def ranked(prompt: str | None) -> RankedPrompt | None:
    return None if prompt is None else RankedPrompt(prompt, 1.0, "prompts")


def compose_one(target: str, prompt: str | None, fragments: ScoredFragments, dim: int = 32) -> Candidate:
    """Composes for a picture that lies exactly where the text `target` does."""
    encoder = FakeEncoder(dim)
    return compose(encoder.encode_texts([target]), [ranked(prompt)], [fragments], encoder.encode_texts)[0]


def cosine(text: str, target: str) -> float:
    return float(np.dot(*FakeEncoder().encode_texts([text, target])))


def test_fragments_that_fit_are_appended_best_first() -> None:
    final = compose_one(
        "red dog oil painting moody", "a red dog", pool(medium=["oil painting", "photo"], flavor=["moody"])
    )
    assert final.prompt == "a red dog, oil painting, moody"
    assert [(part.text, part.source, part.kind) for part in final.parts] == [
        ("a red dog", "prompts", "prompt"),
        ("oil painting", "vocabulary:list.txt", "medium"),
        ("moody", "vocabulary:list.txt", "flavor"),
    ]
    assert final.parts[0].score == pytest.approx(cosine("a red dog", "red dog oil painting moody"), abs=1e-6)
    assert final.parts[1].score == 0.5
    assert final.score == pytest.approx(cosine(final.prompt, "red dog oil painting moody"), abs=1e-6)


def test_what_does_not_help_is_left_out() -> None:
    final = compose_one("red dog", "red dog", pool(medium=["oil painting"], flavor=["moody"]))
    assert final.prompt == "red dog"
    assert final.score == pytest.approx(1.0, abs=1e-6)
    assert len(final.parts) == 1


def test_negative_kinds_never_enter() -> None:
    fragments = {**pool(negative=["sunset"]), "negative-hands": [(Fragment("sunset", "negative-hands"), 0.9)]}
    assert compose_one("red dog sunset", "red dog", fragments).prompt == "red dog"
    assert compose_one("red dog sunset", None, fragments) == Candidate("", 0.0, ())


def test_without_a_prompt_the_best_fragment_starts() -> None:
    final = compose_one("oil painting dog", None, pool(medium=["photo", "oil painting"], flavor=["dog"]))
    assert final.prompt == "oil painting, dog"
    assert [part.kind for part in final.parts] == ["medium", "flavor"]


def test_with_nothing_the_candidate_is_empty() -> None:
    assert compose_one("dog", None, {}) == Candidate("", 0.0, ())


def test_punctuation_at_the_end_of_a_prompt_does_not_double() -> None:
    assert compose_one("red dog sunset", "A red dog. ", pool(flavor=["sunset"])).prompt == "A red dog, sunset"
    assert compose_one("a red dog.", "A red dog. ", {}).prompt == "A red dog. "


def test_no_more_fragments_than_the_limit() -> None:
    # In so many dimensions all words are nearly orthogonal, so each of the nine is a gain.
    final = compose_one(" ".join(WORDS), "red", pool(a=WORDS[1:4], b=WORDS[4:7], c=WORDS[7:]), dim=4096)
    assert len(final.parts) == 1 + MAX_FRAGMENTS


def test_a_full_prompt_takes_only_what_fits() -> None:
    start = " ".join(f"word{i}" for i in range(MAX_WORDS - 1))  # all different, so that one more word weighs something
    fragments = pool(medium=["oil painting"], flavor=["sunset"])
    assert compose_one("oil painting", start, pool(medium=["oil painting"])).prompt == start
    assert compose_one("oil painting sunset", start, fragments).prompt == f"{start}, sunset"
    assert compose_one("oil painting sunset", f"{start} red", fragments).prompt == f"{start} red"


@settings(max_examples=60, deadline=None)
@given(st.lists(cases, max_size=4))
def test_every_step_is_a_gain_and_batches_change_nothing(
    batch: list[tuple[str, str | None, dict[str, list[str]]]],
) -> None:
    encoder = FakeEncoder()
    queries = encoder.encode_texts([target for target, _, _ in batch])
    prompts = [ranked(prompt) for _, prompt, _ in batch]
    fragments = [pool(**kinds) for _, _, kinds in batch]
    finals = compose(queries, prompts, fragments, encoder.encode_texts)
    assert len(finals) == len(batch)
    for final, (target, prompt, kinds) in zip(finals, batch, strict=True):
        assert final.prompt == compose_one(target, prompt, pool(**kinds)).prompt
        assert final.prompt == ", ".join(part.text for part in final.parts)
        assert not any(part.kind.startswith("negative") for part in final.parts)
        assert (prompt is None) or final.parts[0].text == prompt
        scores = [cosine(", ".join(p.text for p in final.parts[: i + 1]), target) for i in range(len(final.parts))]
        assert all(after - before >= MIN_GAIN - 1e-5 for before, after in pairwise(scores))
        assert final.score == pytest.approx(scores[-1] if scores else 0.0, abs=1e-5)
        for i, part in enumerate(final.parts[1:], start=1):
            assert not holds_words(", ".join(p.text for p in final.parts[:i]), part.text)


@settings(max_examples=60, deadline=None)
@given(phrases, phrases, pools)
def test_the_first_fragment_is_the_best_of_all(target: str, prompt: str, kinds: dict[str, list[str]]) -> None:
    final = compose_one(target, prompt, pool(**kinds))
    usable = [
        text
        for kind, texts in kinds.items()
        if not kind.startswith("negative")
        for text in texts
        if not holds_words(prompt, text)
    ]
    best = max((cosine(f"{prompt}, {text}", target) for text in usable), default=-1.0)
    if len(final.parts) > 1:
        assert cosine(f"{prompt}, {final.parts[1].text}", target) == pytest.approx(best, abs=1e-5)
    else:
        assert best < cosine(prompt, target) + MIN_GAIN + 1e-5


def test_all_pictures_of_a_batch_share_one_call_of_the_encoder_a_round() -> None:
    encoder = FakeEncoder()
    queries = encoder.encode_texts(["red oil painting", "dog sunset"])
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> np.ndarray:
        calls.append(list(texts))
        return encoder.encode_texts(texts)

    fragments = pool(medium=["oil painting"], flavor=["sunset"])
    compose(queries, [ranked("red"), ranked("dog")], [fragments, fragments], encode)  # type: ignore[arg-type]
    assert calls == [
        ["red", "dog"],
        ["red, oil painting", "red, sunset", "dog, oil painting", "dog, sunset"],
    ]


@pytest.mark.parametrize(
    ("text", "fragment", "holds"),
    [
        ("a red dog, oil painting", "Oil-Painting", True),
        ("style of Claude Monet", "by Claude Monet", True),
        ("sunlight", "sun", False),
        ("oil on canvas", "oil canvas", False),
        ("red dog", "red dog, sitting", False),
        ("東京 タワー", "東京", True),
        ("anything", "the", True),
        ("anything", "...", True),
    ],
)
def test_holds_words(text: str, fragment: str, holds: bool) -> None:
    assert holds_words(text, fragment) is holds
