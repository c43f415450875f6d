"""Systems that are captioners, alone or told the prompts of the library's nearest pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unprompt.evaluation.cache import code_version, content_key
from unprompt.evaluation.items import Item
from unprompt.evaluation.systems import Answer
from unprompt.search.retrieve import nearest_by_prompt, retrieve_neighbours
from unprompt.systems.weights import trained_folder, weights_key
from unprompt.systems.workshop import Workshop

if TYPE_CHECKING:
    from unprompt.systems.grids import GridCaptioner
    from unprompt.types import Candidate, Captioner

NUM_BEAMS, MAX_TOKENS = 5, 30
"""What `unprompt caption` takes when it is not told."""

LOOKED_AT = 64
"""Nearest pictures whose distinct prompts a captioner is told, as `unprompt caption --library` does."""

USUAL = {"ofa": "ofa:base", "blip": "blip:Salesforce/blip-image-captioning-base"}
"""Captioners that have a usual size when they are named without one."""


class CaptionSystem:
    """Answers with a captioner's best caption.

    Args:
        name: what tables call it.
        captioner: as `unprompt.captioners.registry.load_captioner` names it, or a key of `USUAL`.
        told: whether it is told neighbours.
        workshop: with the library.

    Raises:
        EvaluationError: there is no such captioner.
        EncoderError: its weights would have to be fetched and cannot be.
    """

    def __init__(self, name: str, captioner: str, told: bool, workshop: Workshop) -> None:
        self.name = name
        self.encoders = workshop.composers if told else frozenset()
        self._spec = USUAL.get(captioner, captioner)
        self._told = told
        self._workshop = workshop
        self._captioner: Captioner | GridCaptioner | None = None
        code = code_version("captioners", "encoders", "systems", *(["search", "index"] if told else []))
        where = workshop.fingerprint if told else workshop.programs
        self.fingerprint = content_key("captioner", weights_key(self._spec), told, self._rules, where, code)

    @property
    def _rules(self) -> list[int]:
        return [NUM_BEAMS, MAX_TOKENS, LOOKED_AT]

    @property
    def texts_encoded(self) -> int:
        """See `System`; neighbours that a captioner attends to are embedded by its own text encoder."""
        return 0

    def prepare(self, items: Sequence[Item]) -> None:
        """See `System`."""
        folder = trained_folder(self._spec)
        if folder is not None:
            self._captioner = captioner = self._workshop.captioner(folder)
            self._workshop.grids.prepare(captioner, items)
        elif self._captioner is None:
            from unprompt.captioners.registry import load_captioner

            self._captioner = load_captioner(self._spec, self._workshop.device)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """See `System`."""
        told = self._neighbours(items) if self._told else None
        return [Answer(found[0].prompt if found else "") for found in self._write(items, told)]

    def _write(self, items: Sequence[Item], told: list[list[str]] | None) -> list[list[Candidate]]:
        from unprompt.systems.grids import GridCaptioner

        captioner = self._captioner
        assert captioner is not None, "prepare first"
        if isinstance(captioner, GridCaptioner):
            return captioner.caption_grids(self._workshop.grids.read(captioner, items), NUM_BEAMS, MAX_TOKENS, told)
        images = [self._workshop.open(item) for item in items]
        return captioner.caption(images, num_beams=NUM_BEAMS, max_tokens=MAX_TOKENS, neighbours=told)

    def _neighbours(self, items: Sequence[Item]) -> list[list[str]]:
        rows = self._workshop.embeddings(items)
        found = retrieve_neighbours(self._workshop.library, rows, LOOKED_AT)
        return [list(nearest_by_prompt(neighbours)) for neighbours in found]
