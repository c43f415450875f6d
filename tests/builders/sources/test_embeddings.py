"""Embeddings made elsewhere: clip-retrieval's folders, .npy files and parquet columns, taken as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes import FakeEncoder, normalise
from unprompt.builders.build import build_library
from unprompt.builders.entries import EmbeddedEntry
from unprompt.builders.sources import SourceOptions, open_source
from unprompt.errors import SourceError
from unprompt.index.library import Library
from unprompt.types import Skipped

DIM = 32


def rows(count: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return normalise(np.random.default_rng(seed).standard_normal((count, DIM))) * np.float32(scale)


def clip_retrieval(root: Path, counts: list[int], digits: int = 1, **changes: Any) -> list[np.ndarray]:
    """What clip_inference writes: arrays of float16 and a pandas table, an index column and all."""
    images = []
    for number, count in enumerate(counts):
        images.append(rows(count, number).astype(changes.get("dtype", np.float16)))
        captions = [f"prompt {number} {i}" for i in range(count)]
        texts = FakeEncoder().encode_texts(captions).astype(np.float16)
        frame = pd.DataFrame(
            {
                "image_path": [f"/data/{number}/{i}.jpg" for i in range(count)],
                "caption": captions,
                "url": [f"https://example.org/{number}/{i}" for i in range(count)],
                "width": [640.0] * count,
                "NSFW": ["UNLIKELY"] * count,
            }
        )
        for name in ("img_emb", "text_emb", "metadata"):
            (root / name).mkdir(parents=True, exist_ok=True)
        tag = str(number).zfill(digits)
        np.save(root / "img_emb" / f"img_emb_{tag}.npy", images[-1])
        if changes.get("text", True):
            np.save(root / "text_emb" / f"text_emb_{tag}.npy", texts)
        frame.to_parquet(root / "metadata" / f"metadata_{tag}.parquet")
    if not changes.get("text", True):
        (root / "text_emb").rmdir()
    return images


def build(spec: Path, library: Path, encoder: FakeEncoder | None = None, **options: Any) -> Any:
    return build_library(
        [open_source(str(spec), **options)], library, encoder or FakeEncoder(), workers=0, shard_size=4
    )


def test_clip_retrieval_folders_are_indexed_without_opening_a_picture(tmp_path: Path) -> None:
    images = clip_retrieval(tmp_path / "cr", [5, 3, 4])
    source = open_source(str(tmp_path / "cr"))
    assert source.format == "clip-retrieval"
    encoder = FakeEncoder()
    report = build(tmp_path / "cr", tmp_path / "l", encoder)
    assert (report.pictures, report.imported, dict(report.skipped)) == (12, 12, {})
    assert encoder.images_encoded == 0
    assert encoder.texts_encoded == 8  # the probes that hold the encoder to its word
    library = Library.open(tmp_path / "l")
    assert library.verify() == []
    stored = np.concatenate(list(library.arrays(*_pictures("img_emb"))))
    np.testing.assert_array_equal(stored, np.concatenate(images).astype(np.float32))
    record = library.records([5])[0]
    assert (record.prompt, record.image) == ("prompt 1 0", "/data/1/0.jpg")
    assert record.metadata["width"] == 640
    assert record.metadata["url"] == "https://example.org/1/0"
    assert record.metadata["NSFW"] == "UNLIKELY"
    assert all(shard.imported for shard in library.manifest.shards)
    again = build(tmp_path / "cr", tmp_path / "l")
    assert (again.pictures, again.known) == (0, 12)


def _pictures(array: str) -> tuple[Any, str]:
    from unprompt.index.shards import PICTURES

    return PICTURES, array


def test_shards_follow_their_numbers_not_their_names(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [1] * 11)
    entries = list(open_source(str(tmp_path / "cr")))
    assert [entry.prompt for entry in entries if isinstance(entry, EmbeddedEntry)] == [
        f"prompt {i} 0" for i in range(11)
    ]


def test_without_text_embeddings_the_encoder_encodes_the_prompts(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [3, 2], text=False)
    encoder = FakeEncoder()
    build(tmp_path / "cr", tmp_path / "l", encoder)
    assert (encoder.images_encoded, encoder.texts_encoded) == (0, 5)
    [text] = [np.concatenate(list(Library.open(tmp_path / "l").arrays(*_pictures("text_emb"))))]
    np.testing.assert_allclose(text[1], FakeEncoder().encode_texts(["prompt 0 1"])[0], atol=1e-3)


def test_text_embeddings_alone_are_prompts_without_pictures(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [3])
    (tmp_path / "cr" / "img_emb" / "img_emb_0.npy").unlink()
    (tmp_path / "cr" / "img_emb").rmdir()
    report = build(tmp_path / "cr", tmp_path / "l")
    assert (report.pictures, report.prompts, report.imported) == (0, 3, 3)


@pytest.mark.parametrize(("dtype", "scale"), [("float16", 1.0), ("float32", 1.0), ("float32", 11.5), ("float64", 0.3)])
def test_rows_are_normalised_unless_they_are(tmp_path: Path, dtype: str, scale: float) -> None:
    given = rows(6, 1, scale).astype(dtype)
    folder = tmp_path / "emb"
    folder.mkdir()
    np.save(folder / "img_a.npy", given)
    (folder / "prompts.txt").write_text("\n".join(f"p{i}" for i in range(6)))
    found = np.stack([entry.image for entry in open_source(str(folder)) if isinstance(entry, EmbeddedEntry)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
    if scale == 1.0:
        np.testing.assert_array_equal(found, given.astype(np.float32))
    else:
        np.testing.assert_allclose(found, rows(6, 1), atol=1e-6)


def test_rows_that_are_no_embedding_are_skipped_and_named(tmp_path: Path) -> None:
    images = clip_retrieval(tmp_path / "cr", [5], dtype=np.float32)[0]
    images[1, 3], images[2, 0], images[3] = np.nan, np.inf, 0.0
    np.save(tmp_path / "cr/img_emb/img_emb_0.npy", images)
    report = build(tmp_path / "cr", tmp_path / "l")
    assert (report.pictures, dict(report.skipped)) == (2, {"bad embedding": 3})
    lines = [json.loads(line) for line in (tmp_path / "l/skipped.jsonl").read_text().splitlines()]
    assert [line["uri"] for line in lines] == [f"/data/0/{i}.jpg" for i in (1, 2, 3)]
    assert "row 2 of img_emb_0.npy" in lines[1]["detail"]


def test_a_bad_text_embedding_is_encoded_anew(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [4])
    texts = np.load(tmp_path / "cr/text_emb/text_emb_0.npy")
    texts[2] = np.nan
    np.save(tmp_path / "cr/text_emb/text_emb_0.npy", texts)
    assert build(tmp_path / "cr", tmp_path / "l").pictures == 4
    stored = np.concatenate(list(Library.open(tmp_path / "l").arrays(*_pictures("text_emb"))))
    np.testing.assert_allclose(stored[2], FakeEncoder().encode_texts(["prompt 0 2"])[0], atol=1e-3)


def test_the_encoder_is_held_to_its_word(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [9])
    with pytest.raises(SourceError, match="32 dimensions, encoder fake has 16; name the encoder"):
        build(tmp_path / "cr", tmp_path / "l", FakeEncoder(dim=16))

    class Other(FakeEncoder):
        def encode_texts(self, texts: Any) -> Any:
            return rows(len(texts), 99)

    with pytest.raises(
        SourceError, match=r"not those of fake: over 8 prompts the median cosine with its own is -?0\.\d\d"
    ):
        build(tmp_path / "cr", tmp_path / "l", Other())
    assert not (tmp_path / "l").exists()


def test_another_librarys_fingerprint_is_checked(library_path: Path, tmp_path: Path) -> None:
    source = open_source(str(library_path))
    assert (source.format, len(list(source))) == ("clip-retrieval", 40)
    with pytest.raises(SourceError, match="say they were made by encoder"):
        build(library_path, tmp_path / "l", FakeEncoder(salt="x"))


def test_what_does_not_match_is_one_clear_line(tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        clip_retrieval(tmp_path / name, [4, 3])
        return tmp_path / name

    cases: dict[str, str] = {}
    root = broken("short")
    np.save(root / "img_emb/img_emb_1.npy", rows(2))
    cases["short"] = r"img_emb_1\.npy: 2 rows, metadata_1\.parquet: 3; row i of each must be one row"
    (broken("lost") / "img_emb/img_emb_1.npy").unlink()
    cases["lost"] = r"metadata_1\.parquet has no counterpart in .*img_emb"
    (broken("untold") / "metadata/metadata_0.parquet").unlink()
    cases["untold"] = r"img_emb_0\.npy has no counterpart in .*metadata"
    np.save(broken("objects") / "img_emb/img_emb_0.npy", np.array([{"a": 1}] * 4, dtype=object), allow_pickle=True)
    cases["objects"] = r"img_emb_0\.npy is not a readable array: it holds Python objects"
    np.save(broken("flat") / "img_emb/img_emb_0.npy", np.zeros(4, np.float32))
    cases["flat"] = r"holds float32 \(4,\); embeddings are float16 or float32 \(rows, dim\)"
    np.save(broken("ints") / "img_emb/img_emb_0.npy", np.zeros((4, DIM), np.int8))
    cases["ints"] = r"holds int8 \(4, 32\)"
    np.save(broken("wide") / "text_emb/text_emb_1.npy", np.zeros((3, 8), np.float32))
    cases["wide"] = r"text_emb_1\.npy has 8 columns, img_emb_0\.npy has 32"
    pq.write_table(pa.table({"image_path": ["a"] * 4}), broken("speechless") / "metadata/metadata_0.parquet")
    cases["speechless"] = r"no prompt column such as .*; it has image_path; name one with --prompt-column"
    cut = broken("cut") / "img_emb/img_emb_0.npy"
    cut.write_bytes(cut.read_bytes()[:150])
    cases["cut"] = r"img_emb_0\.npy is not a readable array"
    (broken("noparquet") / "metadata/metadata_0.parquet").write_bytes(b"PAR1 nothing")
    cases["noparquet"] = r"metadata_0\.parquet"
    np.save(broken("twice") / "img_emb/img_emb_00.npy", rows(4))
    cases["twice"] = r"img_emb_00\.npy and img_emb_0\.npy have one number"
    for name, words in cases.items():
        with pytest.raises(SourceError, match=words) as caught:
            open_source(str(tmp_path / name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", ["parquet", "jsonl", "csv", "txt"])
def test_arrays_beside_a_table(tmp_path: Path, table: str) -> None:
    folder = tmp_path / "emb"
    folder.mkdir()
    name = "emb" if table != "txt" else "img_emb"
    np.save(folder / f"{name}_0.npy", rows(3, 0))
    np.save(folder / f"{name}_1.npy", rows(2, 1))
    frame = pd.DataFrame({"prompt": [f"p{i}" for i in range(5)], "file": [f"{i}.png" for i in range(5)]})
    if table == "parquet":
        frame.to_parquet(folder / "rows.parquet")
    elif table == "jsonl":
        frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    elif table == "csv":
        frame.to_csv(folder / "rows.csv", index=False)
    else:
        (folder / "rows.txt").write_text("\n".join(frame["prompt"]) + "\n")
    source = open_source(str(folder))
    assert source.format == "embeddings"
    entries = [entry for entry in source if isinstance(entry, EmbeddedEntry)]
    assert [entry.prompt for entry in entries] == [f"p{i}" for i in range(5)]
    np.testing.assert_array_equal(entries[3].image, rows(2, 1)[0])
    assert (entries[4].picture.uri if entries[4].picture else None) == (None if table == "txt" else "4.png")
    assert build(folder, tmp_path / "l").pictures == 5
    assert len(Library.open(tmp_path / "l").records([4])) == 1
    assert build(folder, tmp_path / "l").known == 5


def test_a_blank_line_of_a_text_file_keeps_the_rows_in_step(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", rows(3))
    (tmp_path / "image.txt").write_text("first\n\nthird\n")
    _, second, third = open_source(str(tmp_path / "image.npy"))
    assert isinstance(second, Skipped)
    assert isinstance(third, EmbeddedEntry)
    np.testing.assert_array_equal(third.image, rows(3)[2])


def test_arrays_and_tables_of_one_number_belong_together(tmp_path: Path) -> None:
    for i in (2, 10):
        np.save(tmp_path / f"image_{i}.npy", rows(2, i))
        np.save(tmp_path / f"text_emb_{i}.npy", FakeEncoder().encode_texts([f"{i} a", f"{i} b"]))
        pd.DataFrame({"caption": [f"{i} a", f"{i} b"]}).to_parquet(tmp_path / f"rows_{i}.parquet")
    entries = {entry.prompt: entry for entry in open_source(str(tmp_path)) if isinstance(entry, EmbeddedEntry)}
    np.testing.assert_array_equal(entries["2 b"].image, rows(2, 2)[1])
    np.testing.assert_array_equal(entries["10 a"].image, rows(2, 10)[0])
    np.testing.assert_array_equal(entries["10 a"].text, FakeEncoder().encode_texts(["10 a"])[0])


def test_an_order_that_nobody_can_know_is_refused(tmp_path: Path) -> None:
    for i in (2, 10):
        np.save(tmp_path / f"emb_{i}.npy", rows(2, i))
    (tmp_path / "prompts.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(SourceError, match="sort differently; pad the numbers with zeros"):
        open_source(str(tmp_path))


def test_arrays_without_prompts_say_what_is_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", rows(2))
    for spec in (tmp_path, tmp_path / "emb.npy"):
        with pytest.raises(SourceError, match="holds embeddings but no prompts; put a table"):
            open_source(str(spec))


def columns_table(kind: str, count: int = 5) -> pa.Table:
    values = rows(count).astype(np.float16 if kind == "half" else np.float32)
    lists = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIM),
        "half": lambda: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIM),
        "list": lambda: pa.array(values.tolist(), pa.list_(pa.float32())),
        "double": lambda: pa.array(values.tolist(), pa.large_list(pa.float64())),
    }[kind]()
    return pa.table(
        {"prompt": [f"p{i}" for i in range(count)], "url": [f"u{i}" for i in range(count)], "embedding": lists}
    )


@pytest.mark.parametrize("kind", ["fixed", "half", "list", "double"])
def test_embeddings_in_parquet_columns(tmp_path: Path, kind: str) -> None:
    pq.write_table(columns_table(kind), tmp_path / "a.parquet", row_group_size=2)
    for spec in (tmp_path, tmp_path / "a.parquet"):
        source = open_source(str(spec))
        assert source.format == "embeddings"
        entries = [entry for entry in source if isinstance(entry, EmbeddedEntry)]
        found = np.stack([entry.image for entry in entries])
        np.testing.assert_array_equal(found, rows(5).astype(np.float16 if kind == "half" else np.float32))
        assert [(entry.prompt, entry.picture.uri) for entry in entries if entry.picture][4] == ("p4", "u4")
    assert build(tmp_path, tmp_path / "l").imported == 5


def test_parquet_columns_are_found_by_name_or_given(tmp_path: Path) -> None:
    table = columns_table("list").rename_columns(["words", "url", "z"])
    pq.write_table(table, tmp_path / "a.parquet")
    options = SourceOptions(prompt_column="words", embedding_column="z")
    assert len(list(open_source(str(tmp_path / "a.parquet"), options=options))) == 5
    with pytest.raises(SourceError, match="no column 'y'; embeddings are lists of floats; it has words, url, z"):
        open_source(str(tmp_path / "a.parquet"), options=SourceOptions(embedding_column="y"))
    with pytest.raises(SourceError, match="column 'url' is string"):
        open_source(str(tmp_path / "a.parquet"), options=SourceOptions(embedding_column="url"))
    with pytest.raises(SourceError, match="no prompt column such as"):
        open_source(str(tmp_path / "a.parquet"), options=SourceOptions(embedding_column="z"))
    named = table.rename_columns(["prompt", "url", "text_embedding"])
    pq.write_table(named, tmp_path / "b.parquet")
    entries = [entry for entry in open_source(str(tmp_path / "b.parquet")) if isinstance(entry, EmbeddedEntry)]
    assert all(entry.image is None and entry.text is not None for entry in entries)


def test_lists_of_another_length_and_nulls_are_skipped(tmp_path: Path) -> None:
    values: list[Any] = [*rows(4).tolist(), [1.0, 2.0], None]
    values[1][5] = None
    table = pa.table({"prompt": list("abcdef"), "image_embedding": pa.array(values, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    found = list(open_source(str(tmp_path / "a.parquet")))
    assert [item.reason if isinstance(item, Skipped) else item.prompt for item in found] == [
        "a", "bad embedding", "c", "d", "bad embedding", "bad embedding",
    ]  # fmt: skip


def test_an_import_that_breaks_resumes_and_stays_marked(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "cr", [7, 6])
    source = open_source(str(tmp_path / "cr"))

    class Breaking:
        def __iter__(self) -> Iterator[Any]:
            for at, entry in enumerate(source):
                if at == 9:
                    raise SourceError("the disk is gone")
                yield entry

    with pytest.raises(SourceError, match="gone"):
        build_library([Breaking()], tmp_path / "l", FakeEncoder(), workers=2, shard_size=4)
    report = build_library([source], tmp_path / "l", FakeEncoder(), workers=2, shard_size=4)
    assert (report.resumed, report.known, report.pictures) == (8, 8, 5)
    build_library([source], tmp_path / "once", FakeEncoder(), workers=0, shard_size=4)
    resumed, once = Library.open(tmp_path / "l"), Library.open(tmp_path / "once")
    assert resumed.manifest == once.manifest
    assert all(shard.imported for shard in resumed.manifest.shards)


def test_imported_and_encoded_rows_have_shards_of_their_own(library_path: Path, tmp_path: Path) -> None:
    from unprompt.index.remove import remove_rows

    clip_retrieval(tmp_path / "cr", [3])
    build(tmp_path / "cr", library_path)
    library = Library.open(library_path)
    assert [shard.imported for shard in library.manifest.shards] == [False, False, False, True]
    assert remove_rows(library_path, ["/data/0/1.jpg"]) == 1
    library = Library.open(library_path)
    assert [(shard.rows, shard.imported) for shard in library.manifest.shards][3] == (2, True)
    assert library.verify() == []


def test_pictures_that_lie_beside_embeddings_are_not_loaded(tmp_path: Path) -> None:
    cells = [{"bytes": b"x" * 1000, "path": f"{i}.png"} for i in range(5)]
    table = columns_table("list").append_column("image", pa.array(cells)).append_column("raw", pa.array([b"y"] * 5))
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(str(tmp_path))
    assert source.format == "embeddings"
    entries = [entry for entry in source if isinstance(entry, EmbeddedEntry)]
    assert [entry.picture.uri for entry in entries if entry.picture] == [f"{i}.png" for i in range(5)]
    assert entries[0].metadata == {"url": "u0"}


def test_a_broken_file_among_good_ones_is_not_left_out(tmp_path: Path) -> None:
    pq.write_table(columns_table("list"), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SourceError, match=r"b\.parquet: not a readable parquet file"):
        open_source(str(tmp_path))


def test_an_index_alone_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "knn.index").write_bytes(b"IxFI")
    (tmp_path / "index_infos.json").write_text("{}")
    with pytest.raises(SourceError, match="holds an index, but not the embeddings that it was made from"):
        open_source(str(tmp_path))


def test_embeddings_that_do_not_say_of_what_are_of_prompts_and_held_against_the_encoder(tmp_path: Path) -> None:
    prompts = ["a red thing", "a sketch", "oil"]
    (tmp_path / "good").mkdir()
    np.save(tmp_path / "good/emb.npy", FakeEncoder().encode_texts(prompts))
    (tmp_path / "good/prompts.txt").write_text("\n".join(prompts))
    assert build(tmp_path / "good", tmp_path / "l").prompts == 3
    table = pa.table({"prompt": prompts, "embedding": pa.array(rows(3).tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"if they are of pictures, call the file img_emb.npy or name the column with"
    ):
        build(tmp_path / "a.parquet", tmp_path / "m")
    named = SourceOptions(embedding_column="embedding")
    assert build(tmp_path / "a.parquet", tmp_path / "m", options=named).pictures == 3


@pytest.mark.parametrize("table", ["npy", "parquet"])
def test_prompts_that_come_again_are_counted_not_lost(tmp_path: Path, table: str) -> None:
    prompts = ["a red thing", "a sketch", "a red thing", "", "a red thing"]
    texts = FakeEncoder().encode_texts(prompts)
    if table == "npy":
        np.save(tmp_path / "text_emb.npy", texts)
        (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    else:
        cells = pa.array(texts.tolist(), pa.list_(pa.float32()))
        pq.write_table(pa.table({"prompt": prompts, "text_embedding": cells}), tmp_path / "a.parquet")
    report = build(tmp_path, tmp_path / "l")
    assert (report.prompts, dict(report.skipped)) == (2, {"no prompt": 1})
    assert Library.open(tmp_path / "l").prompts([0, 1]) == [("a red thing", 3), ("a sketch", 1)]
