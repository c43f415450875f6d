"""Systems that are the engine under some settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from unprompt.captioners.registry import DEFAULT, packaged
from unprompt.evaluation.cache import code_version, content_key
from unprompt.evaluation.items import Item
from unprompt.evaluation.systems import Answer
from unprompt.search.engine import Engine
from unprompt.search.queries import Query
from unprompt.search.settings import Settings
from unprompt.systems.weights import trained_folder, weights_key
from unprompt.systems.workshop import Workshop

if TYPE_CHECKING:
    from unprompt.search.results import QueryResult
    from unprompt.systems.grids import KnownPictures

FRAGMENTS = 10
"""How many of each kind's fragments a system ranks."""


@dataclass(frozen=True)
class Asked:
    """How the engine is asked, and whether the packaged captioner writes candidates for it as for `unprompt query`."""

    settings: Settings = field(default_factory=Settings)
    captioned: bool = False


ENGINES: Mapping[str, Asked] = {
    "interrogator-fast": Asked(Settings(mode="fast")),
    "interrogator-classic": Asked(Settings(mode="classic")),
    "interrogator-best": Asked(Settings(mode="best")),
    "composed": Asked(Settings(rerank=False)),
    "engine": Asked(captioned=True),
    "engine-no-captioner": Asked(),
}
"""Name -> how the engine is asked."""


class EngineSystem:
    """Answers as `unprompt query` does, and ranks the fragments of all kinds together; prompts it ranks as "rrf" does.

    Args:
        name: what tables call it.
        asked: how the engine is asked.
        workshop: with the library.
    """

    def __init__(self, name: str, asked: Asked, workshop: Workshop) -> None:
        self.name = name
        self.encoders = workshop.composers
        self._settings = asked.settings
        self._captioner = DEFAULT if asked.captioned and DEFAULT in packaged() else None
        self._workshop = workshop
        code = code_version(
            "search", "index", "encoders", "pictures", "systems", *(["captioners"] if self._captioner else [])
        )
        weights = weights_key(self._captioner) if self._captioner else None
        facts = [asdict(asked.settings), weights, FRAGMENTS]
        self.fingerprint = content_key("engine", facts, workshop.fingerprint, code)

    @property
    def texts_encoded(self) -> int:
        """See `System`."""
        return self._workshop.texts_encoded

    def prepare(self, items: Sequence[Item]) -> None:
        """See `System`; a first query loads the indexes, the vocabulary and the text encoder."""
        if self._writer is not None:
            self._writer.prepare(items)
        self.answer(items[:1])

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """See `System`."""
        rows, writer = self._workshop.embeddings(items), self._writer
        queries = [
            Query(item.picture.uri, row, None, item.sha256, None if writer is None else writer.token(item))
            for item, row in zip(items, rows, strict=True)
        ]
        return [_answer(result) for result in self._engine.search(queries, FRAGMENTS, self._settings)]

    @cached_property
    def _writer(self) -> KnownPictures | None:
        folder = trained_folder(self._captioner) if self._captioner else None
        if folder is None:
            return None
        from unprompt.systems.grids import KnownPictures

        return KnownPictures(self._workshop.captioner(folder), self._workshop.grids)

    @cached_property
    def _engine(self) -> Engine:
        captioners = [] if self._writer is None else [self._writer]
        return Engine(self._workshop.library, self._workshop.encoder, captioners=captioners)


def _answer(result: QueryResult) -> Answer:
    fragments = [each for found in result.fragments.values() for each in found]
    fragments.sort(key=lambda each: (-each.score, each.text))
    return Answer(result.final.prompt, fragments=tuple(each.text for each in fragments))
