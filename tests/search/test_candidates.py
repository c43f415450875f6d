from __future__ import annotations

import pytest

from unprompt.search.candidates import (
    Found,
    collect_candidates,
    in_prompt_index,
    is_caption,
    neighbour_of,
)
from unprompt.search.results import Neighbour
from unprompt.types import Candidate, Hit, Part, Record


def neighbours(*prompts: str) -> list[Neighbour]:
    return [
        Neighbour(Hit(f"id{rank}", 1 - rank / 10, rank), Record(f"id{rank}", prompt))
        for rank, prompt in enumerate(prompts, start=1)
    ]


def near(*prompts: str) -> list[Hit]:
    return [Hit(prompt, 1 - rank / 10, rank) for rank, prompt in enumerate(prompts, start=1)]


def caption(text: str, score: float = -1.0) -> Candidate:
    return Candidate(text, score, (Part(text, "captioner:lstm", "caption", score),))


def composed(start: str, *fragments: str) -> Candidate:
    parts = (Part(start, "neighbour:id9", "subject", 0.3), *(Part(f, "vocabulary:x", "medium", 0.2) for f in fragments))
    return Candidate(", ".join([start, *fragments]), 0.4, parts)


def sources(candidates: list[Candidate]) -> dict[str, str]:
    return {each.prompt: each.parts[0].source for each in candidates}


def test_one_prompt_of_two_kinds_is_one_candidate_that_names_both() -> None:
    (found,) = collect_candidates([Found(neighbours("a cat", "a dog", "a cat"), near("a cow", "a cat"))])
    assert sources(found) == {"a cat": "neighbour:id1+prompts", "a dog": "neighbour:id2", "a cow": "prompts"}


def test_everything_that_was_found_is_a_candidate_in_order() -> None:
    everything = Found(neighbours("a cat"), near("a dog"), [composed("a cow", "oil")], [caption("a sheep")])
    (found,) = collect_candidates([everything])
    assert [each.prompt for each in found] == ["a cat", "a dog", "a cow, oil", "a sheep"]
    assert [each.score for each in found] == [0.0, 0.0, 0.0, -1.0]
    assert found[2].parts == everything.composed[0].parts


def test_the_depth_counts_distinct_prompts() -> None:
    (found,) = collect_candidates([Found(neighbours("a cat", "a cat", "a dog", "a cow"), near("x", "y", "z"))], depth=2)
    assert [each.prompt for each in found] == ["a cat", "a dog", "x", "y"]
    assert collect_candidates([Found(neighbours("a cat"), near("x"))], depth=0) == [[]]


def test_a_caption_with_the_words_of_a_prompt_strengthens_it() -> None:
    (found,) = collect_candidates([Found(neighbours("A cat, oil"), near("dog"), (), [caption("a cat oil", -0.5)])])
    assert [each.prompt for each in found] == ["A cat, oil", "dog"]
    assert found[0].parts[0].source == "neighbour:id1+captioner:lstm"
    assert found[0].score == -0.5
    assert [is_caption(each) for each in found] == [True, False]
    assert neighbour_of(found[0]) == "id1"


def test_who_found_a_candidate_can_be_told() -> None:
    everything = Found(
        neighbours("cat"), near("dog", "cat"), [composed("cow", "oil"), composed("ox")], [caption("ewe")]
    )
    (found,) = collect_candidates([everything])
    told = {each.prompt: (neighbour_of(each), in_prompt_index(each), is_caption(each)) for each in found}
    assert told == {
        "cat": ("id1", True, False),
        "dog": (None, True, False),
        "cow, oil": (None, False, False),
        "ox": ("id9", False, False),
        "ewe": (None, False, True),
    }


def test_a_policy_shortens_prompts_and_captions_but_nothing_composed() -> None:
    everything = Found(
        neighbours("cat by Monet", "by Monet"), near("dog"), [composed("by Monet")], [caption("ewe by Monet")]
    )
    (found,) = collect_candidates([everything], clean=lambda text: text.replace("by Monet", "").strip())
    assert [each.prompt for each in found] == ["cat", "dog", "by Monet", "ewe"]
    assert found[0].parts == (Part("cat", "neighbour:id1", "prompt", 0.0),)
    assert found[3].parts[0].text == "ewe"


def test_nothing_found_gives_no_candidates() -> None:
    assert collect_candidates([Found(), Found(captions=[caption(" ")])]) == [[], []]
    assert collect_candidates([]) == []


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth of candidates is -1"):
        collect_candidates([Found()], depth=-1)
