from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fakes import FakeEncoder
from unprompt.errors import LibraryError, QueryError
from unprompt.index.vocabulary import Stored, Vocabulary
from unprompt.types import Fragment

FRAGMENTS = [
    Fragment("red", "flavor"),
    Fragment("oil painting", "medium", "mine", 3, "own"),
    Fragment("blue", "flavor"),
    Fragment("Nobody", "artist", born=1900, died=1950),
    Fragment("sketch", "medium"),
]
TERMS = ["red", "oil painting", "blue", "by Nobody", "inspired by Nobody", "sketch"]
SORTED = ["red", "blue", "oil painting", "sketch", "by Nobody", "inspired by Nobody"]


def vocabulary() -> Vocabulary:
    return Vocabulary.of(FRAGMENTS, FakeEncoder().encode_texts(TERMS))


def test_kinds_come_together_in_order_of_first_appearance(tmp_path: Path) -> None:
    made = vocabulary()
    assert made.kinds == ("flavor", "medium", "artist")
    assert made.terms == SORTED
    assert made.lengths.tolist() == [3, 4, 12, 6, 9, 18]
    np.testing.assert_array_equal(made.matrix, FakeEncoder().encode_texts(SORTED))
    assert made.kind_ranges == {"flavor": (0, 2), "medium": (2, 4), "artist": (4, 6)}
    assert made.fragments("medium") == [FRAGMENTS[1], FRAGMENTS[4]]
    assert made.fragments(namespace="own") == [FRAGMENTS[1]]
    assert made.namespaces == ("stock", "own")
    assert made.counts() == {"flavor": 2, "medium": 2, "artist": 1}
    made.write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    again = Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)
    assert again.stored() == made.stored()
    np.testing.assert_array_equal(again.embeddings, made.embeddings)


def test_an_artist_is_stored_once_and_rendered_twice() -> None:
    made = vocabulary()
    assert len(made) == 5
    assert made.fragment(4) == made.fragment(5) == FRAGMENTS[3]
    assert made.fragment_rows.tolist() == [0, 1, 2, 3, 4, 4]


def test_deleted_fragments_keep_their_rows_and_are_in_no_answer() -> None:
    stored = vocabulary().stored()
    stored[4] = Stored(stored[4].fragment, stored[4].forms, deleted=True)
    made = Vocabulary.from_stored(stored, vocabulary().embeddings)
    assert made.live.tolist() == [True] * 4 + [False] * 2
    assert len(made) == 4
    assert made.kinds == ("flavor", "medium")
    assert made.terms == SORTED
    assert (made.fragments("artist"), made.fragments("artist", deleted=True)) == ([], [FRAGMENTS[3]])
    with pytest.raises(QueryError, match="kind 'artist'"):
        made.check_kinds(["artist"])


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(QueryError, match=r"kind 'flavour'.*known kinds: flavor, medium, artist"):
        vocabulary().check_kinds(["artist", "flavour"])


def test_an_empty_vocabulary(tmp_path: Path) -> None:
    empty = Vocabulary.empty(32)
    assert (len(empty), empty.terms, empty.kinds, empty.matrix.shape) == (0, [], (), (0, 32))
    Vocabulary.from_stored([], np.zeros((0, 32), np.float16)).write(tmp_path / "f.parquet", tmp_path / "e.npy")
    assert len(Vocabulary.read(tmp_path / "f.parquet", tmp_path / "e.npy", 32)) == 0


def test_the_first_format_is_still_read(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    old = pq.read_table(tmp_path / "fragments.parquet").select(["text", "kind", "source", "count"]).slice(0, 4)
    pq.write_table(old, tmp_path / "fragments.parquet")
    np.save(tmp_path / "embeddings.npy", vocabulary().embeddings[:4])
    read = Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)
    assert (read.terms, read.namespaces, len(read)) == (SORTED[:4], ("stock",), 4)


def test_fragments_and_embeddings_must_agree(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    np.save(tmp_path / "embeddings.npy", np.zeros((3, 32), np.float32))
    with pytest.raises(LibraryError, match="6 terms and 3 embeddings"):
        Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)


def test_kinds_that_do_not_lie_together_are_refused(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy")
    table = pq.read_table(tmp_path / "fragments.parquet")
    pq.write_table(table.take([0, 2, 1, 3, 4]), tmp_path / "fragments.parquet")
    with pytest.raises(LibraryError, match="'flavor' fragments do not lie together"):
        Vocabulary.read(tmp_path / "fragments.parquet", tmp_path / "embeddings.npy", 32)
