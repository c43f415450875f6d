"""The default answer: of all prompts that were found, composed or written, the one that the learnt ranker prefers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unprompt.search.candidates import Found, collect_candidates, neighbour_of
from unprompt.search.captions import write_captions
from unprompt.search.evidence import Evidence
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.reranker import Reranker
from unprompt.search.results import Neighbour
from unprompt.search.retrieve import nearest_by_prompt
from unprompt.search.settings import CAPTIONS, DEFAULT, INGREDIENTS
from unprompt.search.stored_texts import PushedTexts, StoredTexts, stored_texts
from unprompt.search.subject import prompt_part, subject_from_prompts
from unprompt.types import Candidate, Captioner

DEPTH = 50
"""How far down each ranking is looked, however many results are shown: the answer does not depend on that."""

PROMPT = "prompt"

COPY = 0.95
CLEARLY = 0.5
"""A neighbour of this cosine, at most half as far away (1 - cosine) as the next prompt's, is the picture itself, saved
anew or resized, or as good as that; such a ratio tells matches in Lowe (2004).

With `starter`, 60 of 60 pictures that were saved anew as JPEG were found so. So were 30 of 669 that the library did not
hold: there the neighbour's prompt was as near to the true one as the ranker's choice, 0.746.
"""


@dataclass(frozen=True)
class Fusion:
    """Makes candidates of all evidence, and orders them.

    Attributes:
        reranker: trained for the encoder, or for any.
        captioners: whom to ask for captions; none is fine.
        artists: keys of artists known by name, see `unprompt.search.subject.subject_from_prompts`.
        library: where the prompts' embeddings are stored; without it they are encoded.
    """

    reranker: Reranker
    captioners: Sequence[Captioner] = ()
    artists: Collection[str] = ()
    library: StoredTexts | PushedTexts | None = None

    def find(
        self, task: ComposeInput, evidence: Sequence[Evidence], ingredients: Collection[str] = INGREDIENTS
    ) -> list[Found]:
        """Completes the evidence of Q queries by what is composed and written.

        Args:
            task: the queries, and what prompts are composed with; its subjects are not read.
            evidence: for each query.
            ingredients: what is wanted, see `unprompt.search.settings.INGREDIENTS`; the rest is left empty.
        """
        evidence = [each.within(DEPTH) for each in evidence]
        nothing: list[list[Candidate]] = [[] for _ in evidence]
        composed = self._compose(task, evidence) if "composed" in ingredients else nothing
        captions = write_captions(self.captioners, evidence) if CAPTIONS in ingredients else nothing
        return [
            Found(
                each.neighbours if "neighbours" in ingredients else (),
                each.near if "prompts" in ingredients else (),
                drafts,
                written,
            )
            for each, drafts, written in zip(evidence, composed, captions, strict=True)
        ]

    def rank(self, task: ComposeInput, found: Sequence[Found]) -> list[list[Candidate]]:
        """The candidates of Q queries, best first, each within the task's policy and budget.

        The prompt of a picture's copy (`COPY`) comes first: the ranker has seen new pictures alone.
        """
        candidates = collect_candidates(found, clean=task.allowed)
        neighbours = [each.neighbours for each in found]
        known = stored_texts(self.library, found, candidates) if self.library is not None else None
        ranked = self.reranker.rank(task.queries, candidates, neighbours, task.encode_texts, known)
        return [_copy_first(*each) for each in zip(ranked, neighbours, strict=True)]

    def _compose(self, task: ComposeInput, evidence: Sequence[Evidence]) -> list[list[Candidate]]:
        """Three prompts a query: the library's best prompt and the shared subject, each with fragments beside it, and
        fragments alone, for far from the library neither may show anything of the picture.
        """
        whole = [prompt_part(each.prompts) for each in evidence]
        subjects = [subject_from_prompts(each.prompts, each.neighbours, self.artists, each.near) for each in evidence]
        starts = [*whole, *subjects, *(None for _ in evidence)]
        drafts = MODES[DEFAULT](replace(task, queries=np.tile(task.queries, (3, 1)), subjects=starts))
        return [drafts[row :: len(evidence)] for row in range(len(evidence))]


def _copy_first(ranked: Sequence[Candidate], neighbours: Sequence[Neighbour]) -> list[Candidate]:
    copy = copied(neighbours)
    return sorted(ranked, key=lambda each: copy is None or neighbour_of(each) != copy or each.parts[0].kind != PROMPT)


def copied(neighbours: Sequence[Neighbour]) -> str | None:
    """The id of the neighbour that is the picture itself (`COPY`), None where none clearly is."""
    distances = [1 - each.hit.score for each in nearest_by_prompt(neighbours).values()]
    if not distances or distances[0] > 1 - COPY or (distances[1:] and distances[0] > CLEARLY * distances[1]):
        return None
    return neighbours[0].hit.id
