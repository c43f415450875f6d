from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakeEncoder
from unprompt.builders.build import build_library
from unprompt.builders.vocabulary import add_fragments
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.index.remove import remove_rows
from unprompt.types import Entry, Fragment


def prompts_of(path: Path) -> list[str]:
    return [record.prompt for record in Library.open(path).records(range(len(Library.open(path))))]


def test_rows_go_by_id_by_file_by_glob_and_by_prompt(library_path: Path, entries: list[Entry]) -> None:
    identity = Library.open(library_path).records([3])[0].id
    assert entries[5].picture
    by_file = entries[5].picture.path
    assert remove_rows(library_path, [identity, by_file, "*/picture-001?.png"], [entries[20].prompt]) == 2 + 10 + 1
    kept = [
        e.prompt for i, e in enumerate(entries) if i not in {3, 5, *range(10, 20)} and e.prompt != entries[20].prompt
    ]
    assert prompts_of(library_path) == kept
    library = Library.open(library_path)
    assert library.verify() == []
    assert library.manifest.counts["prompts"] == len(set(kept))


@pytest.mark.parametrize("index", ["Flat", "IVF4,SQfp16", "HNSW8"])
def test_what_is_left_answers_like_a_library_built_without(tmp_path: Path, entries: list[Entry], index: str) -> None:
    for name, part in (("removed", entries), ("without", entries[7:])):
        build_library([part], tmp_path / name, FakeEncoder(), index=index, shard_size=16, workers=0)
    remove_rows(tmp_path / "removed", [str(e.picture.path) for e in entries[:7] if e.picture])
    queries = FakeEncoder().encode_texts(["red", "blue sketch", "a photo"])
    found = []
    for name in ("removed", "without"):
        library = Library.open(tmp_path / name)
        assert library.verify() == []
        assert library.image_index is not None
        rows = library.image_index.search(queries, 5)[1]
        found.append([[record.prompt for record in library.records([int(r) for r in row if r >= 0])] for row in rows])
    if index == "Flat":  # the others are trained, or linked, over other vectors
        assert found[0] == found[1]
    assert all(len(prompts) > 0 for prompts in found[0])


def test_nothing_is_encoded_and_nothing_of_the_row_stays(library_path: Path, entries: list[Entry]) -> None:
    only = entries[39]
    identity = Library.open(library_path).records([39])[0].id
    remove_rows(library_path, [identity])
    for path in library_path.rglob("*"):
        assert not path.is_file() or identity.encode() not in path.read_bytes()
    encoder = FakeEncoder()
    build_library([[only]], library_path, encoder, workers=0)
    assert encoder.images_encoded == 1


def test_a_whole_shard_may_go(library_path: Path, entries: list[Entry]) -> None:
    remove_rows(library_path, [str(entry.picture.path) for entry in entries[:16] if entry.picture])
    library = Library.open(library_path)
    assert (library.verify(), len(library)) == ([], 24)
    assert prompts_of(library_path) == [entry.prompt for entry in entries[16:]]
    build_library([entries], library_path, FakeEncoder(), workers=0)
    assert (Library.open(library_path).verify(), len(Library.open(library_path))) == ([], 40)


def test_prompts_alone_go_by_prompt(library_path: Path) -> None:
    build_library([[Entry("only words", metadata={"source": "s"})]], library_path, FakeEncoder(), workers=0)
    before = Library.open(library_path).manifest.counts["prompts"]
    assert remove_rows(library_path, prompts=["only words"]) == 1
    assert Library.open(library_path).manifest.counts["prompts"] == before - 1
    assert Library.open(library_path).verify() == []


def test_the_vocabulary_stays(library_path: Path, entries: list[Entry]) -> None:
    add_fragments(library_path, [Fragment("red", "flavor")], FakeEncoder())
    remove_rows(library_path, prompts=[entries[0].prompt])
    assert Library.open(library_path).vocabulary.fragments() == [Fragment("red", "flavor")]


def test_one_argument_that_matches_nothing_changes_nothing(library_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(LibraryError, match=r"matches 'no/such/\*'"):
        remove_rows(library_path, [str(entries[0].picture and entries[0].picture.path), "no/such/*"])
    library = Library.open(library_path)
    assert (library.verify(), len(library)) == ([], 40)
    assert not list(library_path.rglob("*.next"))


def test_removing_everything_is_refused(library_path: Path) -> None:
    with pytest.raises(LibraryError, match="every row"):
        remove_rows(library_path, ["*"])
    assert Library.open(library_path).verify() == []
