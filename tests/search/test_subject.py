from __future__ import annotations

from unprompt.search.results import Neighbour, RankedPrompt
from unprompt.search.subject import VOTERS, prompt_part, subject_from_prompts
from unprompt.types import Hit, Part, Record


def neighbours(*found: tuple[str, float]) -> list[Neighbour]:
    return [
        Neighbour(Hit(f"id{rank}", score, rank), Record(f"id{rank}", prompt))
        for rank, (prompt, score) in enumerate(found, start=1)
    ]


def subject(*found: tuple[str, float]) -> str:
    part = subject_from_prompts([], neighbours(*found))
    assert part is not None
    assert part.kind == "subject"
    return part.text


def test_the_subject_that_neighbours_share_wins_over_the_nearest_ones() -> None:
    assert subject(("a cat, oil on canvas", 0.80), ("a dog by Monet", 0.79), ("A dog, 4k", 0.78)) == "a dog"


def test_a_far_majority_does_not_outvote_a_near_neighbour() -> None:
    assert subject(("a cat, oil on canvas", 0.9), ("a dog", 0.5), ("dog, 4k", 0.5), ("the dog", 0.5)) == "a cat"


def test_a_longer_subject_supports_the_shorter_one_that_it_holds() -> None:
    found = (("castle on a hill, oil on canvas", 0.8), ("woman with a red hat", 0.8), ("a woman", 0.79))
    assert subject(*found, ("young woman, 4k", 0.79)) == "a woman"


def test_what_long_subjects_begin_with_wins_when_they_share_it() -> None:
    coats = [("a man in a room, blue woollen coat", 0.8), ("a man in a room, brown leather boots", 0.79)]
    assert subject(*coats) == "a man in a room"
    assert subject(coats[0]) == "a man in a room, blue woollen coat"


def test_a_prompt_that_made_many_pictures_votes_once() -> None:
    same = [("a cat, digital art", 0.8)] * 5
    assert subject(*same, ("a dog", 0.8), ("dog, 4k", 0.8)) == "a dog"


def test_equal_votes_go_to_the_nearest() -> None:
    assert subject(("a cat", 0.8), ("a dog", 0.8)) == "a cat"


def test_the_source_is_the_nearest_that_says_so() -> None:
    part = subject_from_prompts([], neighbours(("a cat", 0.7), ("a dog", 0.69), ("a dog, 4k", 0.68)))
    assert part == Part("a dog", "neighbour:id2", "subject", 0.0)


def test_without_pictures_the_ranked_prompts_vote_by_rank() -> None:
    ranked = [
        RankedPrompt(prompt, 1 / rank, "prompts")
        for rank, prompt in enumerate(["a cat", "a dog", "a dog, oil on canvas", "dog"], start=1)
    ]
    assert subject_from_prompts(ranked, []) == Part("a dog", "prompts", "subject", 0.0)
    assert prompt_part(ranked) == Part("a cat", "prompts", "prompt", 0.0)


def hits(*prompts: str) -> list[Hit]:
    return [Hit(prompt, 0.5, rank) for rank, prompt in enumerate(prompts, start=1)]


def test_prompts_near_the_picture_outvote_neighbours_that_have_nothing_in_common() -> None:
    hubs = neighbours(("spaceship by Exekias", 0.7), ("portrait by Cimabue", 0.7), ("house by Banksy", 0.7))
    near = hits("two dogs in a garden", "a dog, oil on canvas", "a dog by Cimabue")
    assert subject_from_prompts([], hubs, (), near) == Part("a dog", "prompts", "subject", 0.0)
    assert subject_from_prompts([], hubs) == Part("spaceship", "neighbour:id1", "subject", 0.0)


def test_one_prompt_near_the_picture_among_many_does_not_outvote_neighbours_that_agree() -> None:
    agreeing = neighbours(("a cat, 4k", 0.8), ("a cat by Cimabue", 0.79))
    part = subject_from_prompts([], agreeing, (), hits("a dog", "a castle", "two ships at sea", "a red car"))
    assert part == Part("a cat", "neighbour:id1", "subject", 0.0)


def test_prompts_beyond_the_voters_have_no_say() -> None:
    many = hits(*(f"thing{number}" for number in range(VOTERS)), *["a cat"] * 50)
    part = subject_from_prompts([], neighbours(("a dog", 0.8)), (), many)
    assert part == Part("a dog", "neighbour:id1", "subject", 0.0)


def test_nothing_known_is_no_subject() -> None:
    assert subject_from_prompts([], []) is None
    assert prompt_part([]) is None
    assert subject_from_prompts([], neighbours(("by Claude Monet", 0.9), ("...", 0.8))) is None
