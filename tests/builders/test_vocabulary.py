from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder
from unprompt.builders.vocabulary import (
    VocabularyReport,
    add_fragments,
    calibrate_vocabulary,
    count_terms,
    remove_fragments,
    restore_fragments,
)
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.index.text_cache import TextCache
from unprompt.index.vocabulary import Vocabulary
from unprompt.types import Fragment

FRAGMENTS = [Fragment("Ada Painter", "artist"), Fragment("soft light", "flavor"), Fragment("etching", "medium")]


@pytest.fixture
def cache(tmp_path: Path, encoder: FakeEncoder) -> TextCache:
    return TextCache(encoder, "float16", tmp_path / "cache")


def opened(path: Path) -> Vocabulary:
    library = Library.open(path)
    assert library.verify() == []
    return library.vocabulary


def test_only_new_texts_are_encoded(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    assert add_fragments(library_path, FRAGMENTS, encoder, cache=cache) == VocabularyReport(3, 0, 4, 0)
    more = [*FRAGMENTS, *(Fragment(f"term {i}", "flavor") for i in range(1000)), Fragment("soft light", "mine")]
    before = encoder.texts_encoded
    assert add_fragments(library_path, more, encoder, cache=cache) == VocabularyReport(1001, 0, 1000, 0)
    assert encoder.texts_encoded - before == 1000
    made = opened(library_path)
    expected = FakeEncoder().encode_texts(made.terms).astype(np.float16)
    np.testing.assert_array_equal(made.embeddings, expected)


def test_another_library_of_the_encoder_costs_nothing(library_path: Path, tmp_path: Path, cache: TextCache) -> None:
    from tiny_library import write_library

    other = tmp_path / "other"
    write_library(other, FakeEncoder())
    add_fragments(library_path, FRAGMENTS, FakeEncoder(), cache=cache)
    encoder = FakeEncoder()
    again = TextCache(encoder, "float16", tmp_path / "cache")
    assert add_fragments(other, FRAGMENTS, encoder, cache=again) == VocabularyReport(3, 0, 0, 4)
    assert encoder.texts_encoded == 0
    np.testing.assert_array_equal(opened(other).embeddings, opened(library_path).embeddings)


def test_encoders_do_not_share_a_cache(library_path: Path, tmp_path: Path, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS, FakeEncoder(), cache=cache)
    other = TextCache(FakeEncoder(salt="other"), "float16", tmp_path / "cache")
    assert not other.take(["soft light"])[0].any()


def test_a_killed_run_keeps_what_was_encoded(
    library_path: Path, encoder: FakeEncoder, cache: TextCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unprompt.builders.vocabulary._TEXTS_A_CALL", 10)
    fragments = [Fragment(f"term {i}", "flavor") for i in range(35)]
    done = 0

    def die(count: int) -> None:
        nonlocal done
        done += count
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_fragments(library_path, fragments, encoder, die, cache=cache)
    assert len(opened(library_path)) == 0
    assert add_fragments(library_path, fragments, encoder, cache=cache) == VocabularyReport(35, 0, 15, 20)


def test_progress_counts_terms_once(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    calls: list[int] = []
    fragments = [*FRAGMENTS, FRAGMENTS[0]]
    add_fragments(library_path, fragments, encoder, calls.append, cache=cache)
    assert sum(calls) == count_terms(fragments) == 6


def test_removed_fragments_come_back_for_nothing(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS, encoder, cache=cache)
    assert remove_fragments(library_path, ["by Ada Painter"]) == 1
    assert opened(library_path).kinds == ("flavor", "medium")
    assert Library.open(library_path).manifest.counts["fragments"] == 2
    with pytest.raises(LibraryError, match="no fragment that matches 'Ada Painter'"):
        remove_fragments(library_path, ["Ada Painter"])
    assert restore_fragments(library_path, kinds=["artist"]) == 1
    assert remove_fragments(library_path, kinds=["artist"]) == 1
    before = encoder.texts_encoded
    assert add_fragments(library_path, FRAGMENTS, encoder, cache=cache) == VocabularyReport(0, 1, 0, 0)
    assert encoder.texts_encoded == before
    assert opened(library_path).kinds == ("artist", "flavor", "medium")
    with pytest.raises(LibraryError, match="no removed fragment that matches 'artist'"):
        restore_fragments(library_path, kinds=["artist"])


def test_purged_fragments_are_gone(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS, encoder, cache=cache)
    remove_fragments(library_path, ["soft light"])
    assert remove_fragments(library_path, kinds=["artist", "flavor"], purge=True) == 2
    made = opened(library_path)
    assert (made.terms, made.fragments(deleted=True)) == (["etching"], [])
    np.testing.assert_array_equal(made.embeddings, encoder.encode_texts(["etching"]).astype(np.float16))
    remove_fragments(library_path, kinds=["medium"], purge=True)
    assert len(opened(library_path)) == 0


def test_a_namespace_stands_beside_the_stock_list(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    own = [Fragment("etching", "medium", namespace="mine"), Fragment("neon", "flavor", namespace="mine")]
    assert add_fragments(library_path, [*FRAGMENTS, *own], encoder, cache=cache).added == 5
    assert opened(library_path).namespaces == ("stock", "mine")
    assert remove_fragments(library_path, namespaces=["mine"]) == 2
    assert opened(library_path).fragments() == FRAGMENTS


def test_forms_of_ones_own(library_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    add_fragments(library_path, FRAGMENTS[:1], encoder, forms={"artist": ["style of {}"]}, cache=cache)
    assert opened(library_path).terms == ["style of Ada Painter"]
    for forms, words in (({"artist": ["by"]}, "form 'by'"), ({"artist": ()}, "has no form")):
        with pytest.raises(LibraryError, match=words):
            add_fragments(library_path, FRAGMENTS, encoder, forms=forms, cache=cache)


def test_a_vocabulary_is_calibrated_on_the_pictures(
    library_path: Path, encoder: FakeEncoder, cache: TextCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fragments(library_path, FRAGMENTS[:2], encoder, cache=cache)
    assert opened(library_path).calibration is None  # forty pictures are too few to do so unasked
    assert calibrate_vocabulary(library_path) == 40
    add_fragments(library_path, FRAGMENTS[2:], encoder, cache=cache)
    calibration = opened(library_path).calibration
    assert calibration is not None
    assert len(calibration) == 4
    whole = opened(library_path).calibration
    calibrate_vocabulary(library_path)
    again = opened(library_path).calibration
    assert whole is not None
    assert again is not None
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(
        whole.percentiles(np.arange(4), scores), again.percentiles(np.arange(4), scores), atol=1e-3
    )
    remove_fragments(library_path, ["soft light"], purge=True)
    assert len(opened(library_path).calibration or ()) == 3


def test_too_few_pictures_to_calibrate_on(tmp_path: Path, encoder: FakeEncoder, cache: TextCache) -> None:
    from tiny_library import write_library

    write_library(tmp_path / "l", encoder, (), {"red": 1}, FRAGMENTS)
    with pytest.raises(LibraryError, match="has 0 pictures to calibrate on"):
        calibrate_vocabulary(tmp_path / "l")
