from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fakes import FakeEncoder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.vocabulary import add_fragments
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.types import Entry, Fragment, Picture
from vectors import unit


def test_the_layout_is_that_of_clip_retrieval(library_path: Path) -> None:
    metadata = [pq.read_table(path) for path in sorted((library_path / "metadata").glob("*.parquet"))]
    assert [table.num_rows for table in metadata] == [16, 16, 8]
    for folder in ("img_emb", "text_emb"):
        arrays = [np.load(path, allow_pickle=False) for path in sorted((library_path / folder).glob("*.npy"))]
        assert [array.shape for array in arrays] == [(16, 32), (16, 32), (8, 32)]
        assert all(array.dtype == np.float16 for array in arrays)
    assert {"image_path", "caption"} <= set(metadata[0].schema.names)


def test_row_i_is_row_i_everywhere(library_path: Path, entries: list[Entry], encoder: FakeEncoder) -> None:
    library = Library.open(library_path)
    assert [record.prompt for record in library.records(range(40))] == [entry.prompt for entry in entries]
    texts = np.concatenate([np.load(path) for path in sorted((library_path / "text_emb").glob("*.npy"))])
    np.testing.assert_allclose(texts, encoder.encode_texts([entry.prompt for entry in entries]), atol=1e-3)
    assert library.image_index is not None
    images = np.concatenate([np.load(path) for path in sorted((library_path / "img_emb").glob("*.npy"))])
    _, rows = library.image_index.search(images.astype(np.float32), 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(40))


def test_the_prompt_index_holds_distinct_prompts_with_counts(library_path: Path, entries: list[Entry]) -> None:
    library = Library.open(library_path)
    assert library.prompt_index is not None
    prompts = dict(library.prompts(range(len(library.prompt_index))))
    expected = [entry.prompt for entry in entries]
    assert prompts == {prompt: expected.count(prompt) for prompt in expected}


def test_rows_come_in_the_order_asked_for_however_often(library_path: Path, entries: list[Entry]) -> None:
    library = Library.open(library_path)
    rows = [39, 0, 17, 16, 15, 17, 3]
    assert [record.prompt for record in library.records(rows)] == [entries[row].prompt for row in rows]
    assert library.records([]) == []
    texts = np.concatenate([np.load(path) for path in sorted((library_path / "text_emb").glob("*.npy"))])
    np.testing.assert_array_equal(library.picture_texts(rows), texts[rows].astype(np.float32))
    assert library.prompts([3, 0, 3])[::2] == [library.prompts([3])[0]] * 2


def test_records_of_shards_of_different_origin_come_together(tmp_path: Path, entries: list[Entry]) -> None:
    """Tables say who made their embeddings, which differs between shards that were imported and others."""
    from unprompt.builders.sources import open_source

    folder = tmp_path / "made"
    folder.mkdir()
    np.save(folder / "img_emb.npy", unit(3, 32))
    (folder / "prompts.txt").write_text("one\ntwo\nthree\n")
    root, encoder = tmp_path / "library", FakeEncoder()
    build_library([entries[:2]], root, encoder, workers=0)
    build_library([open_source(str(folder), "embeddings")], root, encoder, workers=0)
    library = Library.open(root)
    assert [shard.imported for shard in library.manifest.shards] == [False, True]
    assert [record.prompt for record in library.records([4, 0, 2])] == ["three", entries[0].prompt, "one"]


def test_a_table_that_lost_rows_is_one_line(library_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unprompt.index import library as module

    path = library_path / "metadata" / "metadata_0001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 5), path)
    monkeypatch.setattr(module, "_HASH_AT_OPEN", -1)  # as if it were too large to be checked at once
    manifest = json.loads((library_path / "manifest.json").read_text())
    manifest["files"]["metadata/metadata_0001.parquet"]["bytes"] = path.stat().st_size
    (library_path / "manifest.json").write_text(json.dumps(manifest))
    library = Library.open(library_path)
    assert library.records([20])
    with pytest.raises(LibraryError, match="fewer rows than the manifest says") as caught:
        library.records([0, 21])
    assert "\n" not in str(caught.value)


def test_metadata_comes_back(tmp_path: Path, entries: list[Entry], encoder: FakeEncoder) -> None:
    metadata = {
        "sampler": "k_lms",
        "cfg": 7.5,
        "steps": 50,
        "seed": str(2**63 + 1),
        "artist": "nobody",
        "tags": ["a", 1],
    }
    build_library([[Entry(entries[0].prompt, entries[0].picture, metadata)]], tmp_path / "l", encoder, workers=0)
    (record,) = Library.open(tmp_path / "l").records([0])
    assert {key: record.metadata[key] for key in metadata} == metadata
    assert (record.metadata["width"], record.metadata["height"]) == (24, 24)
    assert len(str(record.metadata["sha256"])) == 64


def test_a_sound_library_verifies(library_path: Path) -> None:
    assert Library.open(library_path).verify() == []


def all_files(root: Path) -> list[str]:
    return list(json.loads((root / "manifest.json").read_text())["files"])


def test_any_missing_or_shortened_file_is_named_when_opening(library_path: Path, tmp_path: Path) -> None:
    names = all_files(library_path)
    assert len(names) == 13
    for name in names:
        for damage in ("missing", "bytes, the manifest says"):
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(library_path, copy)
            if damage == "missing":
                (copy / name).unlink()
            else:
                (copy / name).write_bytes((copy / name).read_bytes() + b"x")
            with pytest.raises(LibraryError, match=damage) as caught:
                Library.open(copy)
            assert name in str(caught.value)
            assert "\n" not in str(caught.value)


def test_any_flipped_bit_is_named_by_verify(library_path: Path) -> None:
    for name in all_files(library_path):
        path = library_path / name
        original = path.read_bytes()
        if not original:
            continue
        damaged = bytearray(original)
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        assert Library.open(library_path).verify() == [f"{name}: its sha256 is not the manifest's"]
        path.write_bytes(original)


def test_a_changed_index_is_refused_when_it_is_used(library_path: Path) -> None:
    path = library_path / "image.index"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(LibraryError, match=r"image\.index was changed"):
        _ = Library.open(library_path).image_index


def test_an_array_of_objects_is_never_unpickled(library_path: Path) -> None:
    path = library_path / "img_emb" / "img_emb_0000.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = json.loads((library_path / "manifest.json").read_text())
    manifest["files"]["img_emb/img_emb_0000.npy"]["bytes"] = path.stat().st_size
    (library_path / "manifest.json").write_text(json.dumps(manifest))
    from unprompt.index.shards import PICTURES

    with pytest.raises(LibraryError, match="not a readable array"):
        next(Library.open(library_path).arrays(PICTURES, "img_emb"))


def test_rows_that_are_not_there_are_refused(library_path: Path) -> None:
    with pytest.raises(IndexError, match="row 40"):
        Library.open(library_path).records([40])


def test_a_library_without_a_vocabulary_has_an_empty_one(library_path: Path, encoder: FakeEncoder) -> None:
    vocabulary = Library.open(library_path).vocabulary
    assert len(vocabulary) == 0
    assert vocabulary.kinds == ()
    assert vocabulary.terms == []


def test_libraries_made_alike_are_equal_to_the_byte(tmp_path: Path, entries: list[Entry]) -> None:
    contents = []
    for name in ("a", "b"):
        build_library([entries], tmp_path / name, FakeEncoder(), shard_size=16, workers=0)
        add_fragments(tmp_path / name, [Fragment("red", "flavor")], FakeEncoder())
        paths = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.name, path.read_bytes()) for path in paths])
    assert contents[0] == contents[1]


def test_stored_texts_come_back_by_row(library_path: Path, encoder: FakeEncoder, tmp_path: Path) -> None:
    more = [colour_picture(tmp_path / f"{seed}.png", "red", seed=seed) for seed in (901, 902, 903)]
    extra = [Entry(f"a new thing {i}", Picture(str(path))) for i, path in enumerate(more)]
    build_library([[Entry("a lone prompt"), *extra]], library_path, encoder, workers=0)
    library = Library.open(library_path)
    rows = [42, 0, 17, 39, 40, 17]
    prompts = [library.records([row])[0].prompt for row in rows]
    np.testing.assert_allclose(library.picture_texts(rows), encoder.encode_texts(prompts), atol=1e-3)
    assert library.picture_texts([]).shape == (0, encoder.dim)
    total = library.manifest.counts["prompts"]
    texts = [prompt for prompt, _ in library.prompts(range(total))]
    assert "a lone prompt" in texts
    found = library.prompt_texts(range(total))
    assert found is not None
    np.testing.assert_allclose(found, encoder.encode_texts(texts), atol=1e-3)
