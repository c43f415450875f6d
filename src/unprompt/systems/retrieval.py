"""Systems that answer with whole prompts of the library."""

from __future__ import annotations

from collections.abc import Sequence

from unprompt.evaluation.cache import code_version, content_key
from unprompt.evaluation.items import Item
from unprompt.evaluation.systems import Answer
from unprompt.search.retrieve import nearest_by_prompt, rank_prompts, retrieve_neighbours, retrieve_prompts
from unprompt.systems.workshop import Workshop

DEPTH = 50
"""How far down rankings go: as far as the engine looks for its default of five prompts."""

RETRIEVAL = ("neighbours", "prompts", "rrf")


class RetrievalSystem:
    """Answers with the first prompt of a ranking.

    Args:
        name: "neighbours" ranks by the nearest picture that each prompt made, "prompts" by the prompt's own text, "rrf"
            by both, fused.
        workshop: with the library.
    """

    def __init__(self, name: str, workshop: Workshop) -> None:
        if name not in RETRIEVAL:
            raise ValueError(f"no ranking {name!r}, expected one of {', '.join(RETRIEVAL)}")
        self.name = name
        self.encoders = workshop.composers
        self._workshop = workshop
        code = code_version("search", "index", "systems")
        self.fingerprint = content_key("retrieval", name, DEPTH, workshop.fingerprint, code)

    @property
    def texts_encoded(self) -> int:
        """See `System`; texts of the library are encoded already."""
        return 0

    def prepare(self, items: Sequence[Item]) -> None:
        """See `System`; loads the indexes."""
        self.answer(items[:1])

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """See `System`."""
        library, rows = self._workshop.library, self._workshop.embeddings(items)
        if self.name == "prompts":
            rankings = [[hit.id for hit in hits] for hits in retrieve_prompts(library, rows, DEPTH)]
        elif self.name == "neighbours":
            rankings = [list(nearest_by_prompt(found)) for found in retrieve_neighbours(library, rows, DEPTH)]
        else:
            neighbours, near = retrieve_neighbours(library, rows, DEPTH), retrieve_prompts(library, rows, DEPTH)
            fused = [
                rank_prompts(found, hits, item.sha256)
                for item, found, hits in zip(items, neighbours, near, strict=True)
            ]
            rankings = [[each.prompt for each in ranked] for ranked in fused]
        return [Answer(ranking[0] if ranking else "", tuple(ranking)) for ranking in rankings]
