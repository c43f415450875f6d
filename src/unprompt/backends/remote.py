"""A pushed library, opened for searching on a machine that need not have its folder."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from unprompt.backends.protocol import Store
from unprompt.backends.pushing import Facts, read_facts
from unprompt.backends.tables import PICTURES, PROMPTS, prompt_id, row_record
from unprompt.errors import LibraryError
from unprompt.index.files import cache_folder, sha256_file, write_durably
from unprompt.index.manifest import Manifest
from unprompt.index.vocabulary import CALIBRATION_FILE, EMBEDDINGS_FILE, FRAGMENTS_FILE, Vocabulary
from unprompt.index.where import Where
from unprompt.types import Embeddings, Record

if TYPE_CHECKING:
    from unprompt.index.library import Library

Result = TypeVar("Result")

PUSHED = "pushed"
"""Where in the cache files of pushed libraries lie, each under its sha256."""


class PushedLibrary:
    """A `SearchBackend` over a database. Its vocabulary is fetched when first needed, and kept in the user's cache.

    Args:
        store: where it was pushed.
        vocabulary: a library on this machine whose vocabulary is taken instead.

    Raises:
        LibraryError: no push to it has finished, it cannot be reached, or `vocabulary` is of another encoder.
    """

    def __init__(self, store: Store, vocabulary: Library | None = None) -> None:
        facts = read_facts(store)
        if facts is None:
            raise LibraryError(
                f"there is no library at {store.shown}; push one with: unprompt push LIBRARY --to {store.shown}"
            )
        if vocabulary is not None and not _same_encoder(vocabulary.manifest, facts.manifest):
            raise LibraryError(f"{vocabulary.path} and {store.shown} are of different encoders; leave --library out")
        self._local = vocabulary
        self._store = store
        self._facts: Facts = facts
        self.path: Path | str = store.shown
        self.manifest: Manifest = facts.manifest

    def __len__(self) -> int:
        return self.manifest.counts.get("pictures", 0)

    @property
    def dim(self) -> int:
        return self.manifest.encoder.dim

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The fragments, as they were pushed, or those of the library on this machine."""
        if self._local is not None:
            return self._local.vocabulary
        if FRAGMENTS_FILE not in self.manifest.files:
            return Vocabulary.empty(self.dim)
        calibrated = CALIBRATION_FILE in self.manifest.files
        calibration = self._file(CALIBRATION_FILE) if calibrated else None
        return Vocabulary.read(self._file(FRAGMENTS_FILE), self._file(EMBEDDINGS_FILE), self.dim, calibration)

    def of_one_push(self, search: Callable[[], Result]) -> Result:
        """What `search` returns, which searches more than once: should the library be pushed again meanwhile, all of it
        is of the library before, or all of that after. It may be called twice.
        """
        return self._store.of_one_push(search)

    def pictures(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[Record, float]]]:
        """See `SearchBackend.pictures`."""
        found = self._store.search(PICTURES, self._checked(queries), k, where, self._facts.index)
        return [[(row_record(row), score) for row, score in hits] for hits in found]

    def prompts(self, queries: Embeddings, k: int, where: Where | None = None) -> list[list[tuple[str, float]]]:
        """See `SearchBackend.prompts`."""
        found = self._store.search(PROMPTS, self._checked(queries), k, where, self._facts.index)
        return [[(row["prompt"], score) for row, score in hits] for hits in found]

    def prompt_vectors(self, prompts: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """The stored embeddings, (D,) of norm 1, of those of the prompts that the library has."""
        by_id = {prompt_id(prompt): prompt for prompt in prompts}
        found = self._store.vectors(PROMPTS, by_id) if by_id else {}
        return {by_id[key]: vector for key, vector in found.items()}

    def close(self) -> None:
        self._store.close()

    def _checked(self, queries: Embeddings) -> Embeddings:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise LibraryError(f"queries are {queries.shape}, {self.path} has {self.dim} dimensions")
        return queries

    def _file(self, name: str) -> Path:
        """A pushed file in the cache, fetched when it is not there or damaged."""
        sha256 = self.manifest.files[name].sha256
        path = cache_folder() / PUSHED / sha256
        if path.is_file() and sha256_file(path) == sha256:
            return path
        try:
            content = b"".join(base64.b64decode(part, validate=True) for part in self._store.read_file(sha256))
        except (ValueError, binascii.Error):
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            facts = read_facts(self._store)
            if facts is not None and facts.manifest.files.get(name) != self.manifest.files[name]:
                raise LibraryError(f"{self.path} was pushed again since it was opened; open it again")
            raise LibraryError(f"{self.path} does not hold {name} as it was pushed; push the library again")
        write_durably(path, lambda file: file.write(content))
        return path


def _same_encoder(ours: Manifest, theirs: Manifest) -> bool:
    return (ours.encoder.fingerprint, ours.encoder.dim) == (theirs.encoder.fingerprint, theirs.encoder.dim)
