"""Candidates for a picture's final prompt, from everything that was found: what `unprompt.search.reranker` orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from unprompt.search.results import Neighbour
from unprompt.search.retrieve import nearest_by_prompt
from unprompt.search.words import plain_words
from unprompt.types import Candidate, Hit, Part

DEPTH = 20
"""How many distinct prompts of the neighbours, and of the prompt index, are candidates."""

NEIGHBOUR = "neighbour:"
PROMPT_INDEX = "prompts"
CAPTION = "caption"
CAPTIONER = "captioner:"
"""What the sources of captions begin with."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the first stage found for one picture.

    Attributes:
        neighbours: nearest first.
        near: prompts whose text is near the picture, nearest first; a hit's id is its prompt.
        composed: prompts composed for it, in any modes and from any starts.
        captions: of captioners, each with the score that its captioner gave it: a mean log-probability of tokens.
    """

    neighbours: Sequence[Neighbour] = ()
    near: Sequence[Hit] = ()
    composed: Sequence[Candidate] = ()
    captions: Sequence[Candidate] = ()


def collect_candidates(
    found: Sequence[Found], depth: int = DEPTH, clean: Callable[[str], str] | None = None
) -> list[list[Candidate]]:
    """Collects the distinct candidates of Q pictures.

    Two texts with the same words are one candidate, in the spelling of the first: a library's prompt comes before what
    was composed, and that before captions. A whole prompt that a captioner wrote too says so in its source,
    "neighbour:ID+prompts+captioner:NAME", and has the captioner's score.

    Args:
        found: for each picture.
        depth: how many distinct prompts of the neighbours and of the prompt index are taken, 0 or more each.
        clean: what is left of a library's prompt or a caption when a policy and a token budget are kept; "" is left
            out. What was composed has kept them already.

    Returns:
        For each picture its candidates: the best neighbours' prompts, those of the prompt index, composed ones,
        captions. Scores are the captioner's where there is one and 0 elsewhere; `Reranker.rank`
        replaces them by cosines.

    Raises:
        ValueError: `depth` is negative.
    """
    if depth < 0:
        raise ValueError(f"depth of candidates is {depth}, expected 0 or more")
    collected = []
    for each in found:
        whole, captions = _library_prompts(each, depth), list(each.captions)
        if clean is not None:
            whole, captions = [_cleaned(one, clean) for one in whole], [_cleaned(one, clean) for one in captions]
        collected.append(_distinct([*whole, *(replace(one, score=0.0) for one in each.composed), *captions]))
    return collected


def is_caption(candidate: Candidate) -> bool:
    """Whether a captioner wrote these words, alone or besides others."""
    return any(CAPTIONER in part.source or part.kind == CAPTION for part in candidate.parts)


def in_prompt_index(candidate: Candidate) -> bool:
    """Whether this is, whole, a prompt that the prompt index found."""
    return len(candidate.parts) == 1 and PROMPT_INDEX in candidate.parts[0].source.split("+")


def neighbour_of(candidate: Candidate) -> str | None:
    """The id of the nearest picture that this prompt, whole, made; None where no neighbour has it."""
    if len(candidate.parts) != 1:
        return None
    first = candidate.parts[0].source.split("+")[0]
    return first.removeprefix(NEIGHBOUR) if first.startswith(NEIGHBOUR) else None


def _library_prompts(found: Found, depth: int) -> list[Candidate]:
    nearest = list(nearest_by_prompt(found.neighbours).items())[:depth]
    sources = {prompt: [f"{NEIGHBOUR}{neighbour.hit.id}"] for prompt, neighbour in nearest}
    for hit in found.near[:depth]:
        sources.setdefault(hit.id, []).append(PROMPT_INDEX)
    return [
        Candidate(prompt, 0.0, (Part(prompt, "+".join(source), "prompt", 0.0),)) for prompt, source in sources.items()
    ]


def _cleaned(candidate: Candidate, clean: Callable[[str], str]) -> Candidate:
    text = clean(candidate.prompt)
    if text == candidate.prompt:
        return candidate
    return replace(candidate, prompt=text, parts=tuple(replace(part, text=text) for part in candidate.parts[:1]))


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The first of those with the same words; what captioners wrote as well is noted on it."""
    first: dict[str, Candidate] = {}
    for each in candidates:
        if not each.prompt.strip():
            continue
        words = plain_words(each.prompt) or each.prompt
        held = first.get(words)
        if held is None:
            first[words] = each
        elif is_caption(each) and not is_caption(held):
            first[words] = _also_captioned(held, each)
    return list(first.values())


def _also_captioned(held: Candidate, caption: Candidate) -> Candidate:
    writers = dict.fromkeys(part.source for part in caption.parts if part.kind == CAPTION)
    parts = held.parts
    if len(parts) == 1:
        parts = (replace(parts[0], source="+".join([parts[0].source, *writers])),)
    return replace(held, score=caption.score, parts=parts)
