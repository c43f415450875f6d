"""The default backend: a library's folder, searched with FAISS."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from unprompt.index.hits import Hits, search_rows
from unprompt.index.library import Library
from unprompt.index.manifest import Manifest
from unprompt.index.vector_index import VectorIndex
from unprompt.index.vocabulary import Vocabulary
from unprompt.index.where import Where
from unprompt.index.where_search import Selection
from unprompt.types import Embeddings, Record

_KEPT_SELECTIONS = 8


class LocalLibrary:
    """A `SearchBackend` over an open library."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._pictures = lru_cache(_KEPT_SELECTIONS)(lambda where: Selection.pictures(library, where))
        self._prompts = lru_cache(_KEPT_SELECTIONS)(lambda where: Selection.prompts(library, where))

    @property
    def path(self) -> Path:
        return self.library.path

    @property
    def manifest(self) -> Manifest:
        return self.library.manifest

    def __len__(self) -> int:
        return len(self.library)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.library.vocabulary

    def pictures(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[Record, float]]]:
        """See `SearchBackend.pictures`."""
        located = self.located_pictures(queries, k, where)
        return [[(record.settled(), score) for record, score, _ in hits] for hits in located]

    def prompts(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[str, float]]]:
        """See `SearchBackend.prompts`."""
        return [[(prompt, score) for prompt, score, _ in hits] for hits in self.located_prompts(queries, k, where)]

    def located_pictures(
        self, queries: Embeddings, k: int, where: Where | None = None
    ) -> list[list[tuple[Record, float, int]]]:
        """What `pictures` finds, with rows of the image index; metadata is read when it is asked for."""
        selection = self._pictures(where) if where is not None else None
        found = _search(self.library.image_index, selection, queries, k, where)
        rows = sorted({row for hits in found for row, _ in hits})
        records = dict(zip(rows, self.library.lazy_records(rows), strict=True)) if rows else {}
        return [[(records[row], score, row) for row, score in hits] for hits in found]

    def located_prompts(
        self, queries: Embeddings, k: int, where: Where | None = None
    ) -> list[list[tuple[str, float, int]]]:
        """What `prompts` finds, with rows of the prompt index."""
        selection = self._prompts(where) if where is not None else None
        found = _search(self.library.prompt_index, selection, queries, k, where)
        rows = sorted({row for hits in found for row, _ in hits})
        texts = dict(zip(rows, self.library.prompts(rows), strict=True)) if rows else {}
        return [[(texts[row][0], score, row) for row, score in hits] for hits in found]


def _search(
    index: VectorIndex | None, selection: Selection | None, queries: Embeddings, k: int, where: Where | None
) -> Hits:
    if where is None:
        return search_rows(index, queries, k)
    return selection.search(queries, k) if selection is not None else [[] for _ in queries]
