from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder
from unprompt.builders.contexts import embed_contexts
from unprompt.builders.vocabulary import add_fragments
from unprompt.errors import LibraryError
from unprompt.index.contexts import DTYPE, in_context, kept_contexts
from unprompt.index.library import Library
from unprompt.index.text_cache import TextCache
from unprompt.types import Fragment

FRAGMENTS = [Fragment("Ada Painter", "artist"), Fragment("soft light", "flavor"), Fragment("etching", "medium")]


@pytest.fixture
def cache(tmp_path: Path, encoder: FakeEncoder) -> TextCache:
    return TextCache(encoder, DTYPE, tmp_path / "cache")


def test_terms_in_context_are_embedded_once(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS, encoder, cache=cache)
    vocabulary = Library.open(library_path).vocabulary
    assert kept_contexts(vocabulary, encoder, cache) is None
    seen: list[int] = []
    assert embed_contexts(library_path, encoder, seen.append, cache) == (4, 4)
    assert sum(seen) == 4
    found = kept_contexts(vocabulary, encoder, cache)
    assert found is not None
    expected = FakeEncoder().encode_texts(in_context(vocabulary.terms)).astype(np.float16)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert embed_contexts(library_path, encoder, cache=cache) == (4, 0)


def test_they_are_not_known_while_one_is_missing(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS, encoder, cache=cache)
    embed_contexts(library_path, encoder, cache=cache)
    add_fragments(library_path, [Fragment("fog", "flavor")], encoder, cache=cache)
    vocabulary = Library.open(library_path).vocabulary
    assert kept_contexts(vocabulary, encoder, cache) is None
    assert embed_contexts(library_path, encoder, cache=cache) == (5, 1)
    assert kept_contexts(vocabulary, encoder, cache) is not None


def test_errors(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    with pytest.raises(LibraryError, match="has no fragments: add some"):
        embed_contexts(library_path, encoder, cache=cache)
    with pytest.raises(LibraryError, match="was built with encoder"):
        embed_contexts(library_path, FakeEncoder(dim=8), cache=cache)
