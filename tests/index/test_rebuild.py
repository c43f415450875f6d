"""Tuning, rebuilding and describing the indexes of a library on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from unprompt.errors import LibraryError
from unprompt.index.figures import REPORT_FILE
from unprompt.index.goal import IndexGoal
from unprompt.index.library import Library
from unprompt.index.manifest import EncoderInfo, Manifest
from unprompt.index.rebuild import describe_library, rebuild_library, tune_library
from unprompt.index.refresh import refresh
from unprompt.index.shards import PICTURE_SCHEMA, PICTURES
from unprompt.index.target import IndexOptions
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings
from vectors import clustered

DIM = 16
ENCODER = EncoderInfo("fake", "f" * 64, DIM)


def append(writer: LibraryWriter, vectors: Embeddings, first: int) -> None:
    rows = range(first, first + len(vectors))
    cells: dict[str, list[Any]] = {name: [None] * len(rows) for name in PICTURE_SCHEMA.names}
    cells |= {"id": [f"{row:020x}" for row in rows], "caption": [f"prompt {row % 2500}" for row in rows]}
    texts = clustered(2500, DIM)[[row % 2500 for row in rows]]
    writer.append_shard(PICTURES, {"img_emb": vectors, "text_emb": texts}, pa.table(cells, schema=PICTURE_SCHEMA))


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    return clustered(4000)


@pytest.fixture(scope="module")
def made(corpus: Embeddings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "library"
    with LibraryWriter(root, ENCODER, "float32") as writer:
        for start in range(0, 3000, 1000):
            append(writer, corpus[start : start + 1000], start)
        refresh(writer)
    return root


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "library"))


def nearest(path: Path, queries: Embeddings) -> list[list[int]]:
    index = Library.open(path).image_index
    assert index is not None
    rows: list[list[int]] = index.search(queries, 5)[1].tolist()
    return rows


def test_rebuilding_changes_the_index_and_nothing_else(path: Path, corpus: Embeddings) -> None:
    before, exact = Manifest.read(path), nearest(path, corpus[:50])
    reports = rebuild_library(path, "IVF32,SQfp16", IndexGoal(recall=0.99))
    assert set(reports) == {"image", "text"}
    library = Library.open(path)
    assert library.verify() == []
    info = library.manifest.indexes["image"]
    assert (info.factory, info.requested, info.rows) == ("IVF32,SQfp16", "IVF32,SQfp16", 3000)
    assert info.parameters == reports["image"].parameters
    assert info.recall["10"] == reports["image"].figures.recall_10 >= 0.99
    assert library.manifest.counts == before.counts
    shards = {name: file for name, file in before.files.items() if "/" in name}
    assert {name: file for name, file in library.manifest.files.items() if "/" in name} == shards
    assert np.mean(np.array(nearest(path, corpus[:50])) == np.array(exact)) > 0.95


def test_one_index_can_be_rebuilt_alone(path: Path) -> None:
    before = Manifest.read(path)
    rebuild_library(path, "IVF8,SQ8", names=["text"])
    after = Manifest.read(path)
    assert after.indexes["image"] == before.indexes["image"]
    assert after.indexes["text"].factory == "IVF8,SQ8"


def test_the_report_is_kept_until_the_index_changes(path: Path, corpus: Embeddings) -> None:
    assert describe_library(path)["image"][1] is None
    made = rebuild_library(path, "IVF32,SQ8")["image"]
    info, kept = describe_library(path)["image"]
    assert kept == made
    assert kept.bytes == (path / "image.index").stat().st_size
    assert kept.seconds is not None
    assert kept.reason == "as asked for"
    assert REPORT_FILE not in Manifest.read(path).files  # times differ between equal libraries
    with LibraryWriter(path) as writer:
        append(writer, corpus[3000:], 3000)
        refresh(writer)
    info, stale = describe_library(path)["image"]
    assert (info.rows, info.factory, info.recall, stale) == (4000, "IVF32,SQ8", {}, None)


def test_a_damaged_report_is_measured_again(path: Path) -> None:
    rebuild_library(path, "IVF32,SQ8")
    (path / REPORT_FILE).write_text('{"image": 3')
    assert describe_library(path)["image"][1] is None
    assert tune_library(path)["image"].figures.recall_10 >= 0.95


def test_tuning_finds_parameters_for_the_recall_and_keeps_the_file(path: Path) -> None:
    rebuild_library(path, "IVF64,SQfp16", IndexGoal(recall=0.6))
    low, file = Manifest.read(path).indexes["image"], (path / "image.index").read_bytes()
    report = tune_library(path, 0.98, ["image"])["image"]
    high = Manifest.read(path).indexes["image"]
    assert report.figures.recall_10 >= 0.98
    assert low.parameters != high.parameters == report.parameters
    assert IndexGoal.from_dict(high.goal).recall == 0.98
    assert (path / "image.index").read_bytes() == file
    index = Library.open(path).image_index
    assert index is not None
    assert index.parameters == high.parameters
    assert tune_library(path, names=["image"])["image"].parameters == high.parameters


def test_prompts_are_asked_with_pictures_whatever_the_order_of_their_rows(path: Path, corpus: Embeddings) -> None:
    with LibraryWriter(path) as writer:
        append(writer, corpus[3000:], 3000)
        refresh(writer)
    reports = tune_library(path)
    assert reports["text"].figures.recall_10 == 1.0
    assert reports["text"].rows == 2500


def test_vectors_are_given_in_the_order_of_each_index(path: Path, corpus: Embeddings) -> None:
    with LibraryWriter(path) as writer:
        append(writer, corpus[3000:], 3000)
        refresh(writer)
    library = Library.open(path)
    for name, index in (("image", library.image_index), ("text", library.prompt_index)):
        assert index is not None
        vectors = np.concatenate(list(library.vectors(name)))
        np.testing.assert_array_equal(vectors, index.faiss_index.reconstruct_n(0, len(index)))


def test_a_memory_limit_keeps_the_lists_on_disk_and_survives_additions(path: Path, corpus: Embeddings) -> None:
    exact = nearest(path, corpus[:50])
    rebuild_library(path, "auto", IndexGoal(recall=0.99, max_memory=40_000))
    info = Manifest.read(path).indexes["image"]
    assert info.on_disk
    assert info.goal == {"recall": 0.99, "max_memory": 40_000}
    assert np.mean(np.array(nearest(path, corpus[:50])) == np.array(exact)) > 0.9
    with LibraryWriter(path) as writer:
        append(writer, corpus[3000:], 3000)
        refresh(writer)
    grown = Manifest.read(path).indexes["image"]
    assert grown == replace(info, rows=4000, recall={})
    assert Library.open(path).verify() == []
    assert nearest(path, corpus[3500:3501])[0][0] == 3500
    assert not list(path.glob("*.tmp"))


def test_a_latency_goal_is_measured_and_judged(path: Path) -> None:
    easy = rebuild_library(path, "auto", IndexGoal(max_latency=10.0), ["image"])["image"]
    assert easy.factory == "Flat"
    hard = rebuild_library(path, "auto", IndexGoal(max_latency=1e-9), ["image"])["image"]
    assert "nothing is fast enough" in hard.reason
    assert "misses" in hard.reason


def test_options_are_those_of_the_indexes_that_are_made(path: Path) -> None:
    with LibraryWriter(path) as writer:
        refresh(writer, options=IndexOptions("IVF16,SQ8", IndexGoal(0.9), ("image",)))
    indexes = Manifest.read(path).indexes
    assert (indexes["image"].requested, indexes["text"].requested) == ("IVF16,SQ8", "auto")
    assert (indexes["image"].goal, indexes["text"].goal) == ({"recall": 0.9}, {})


def test_equal_libraries_have_equal_manifests(path: Path, made: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(made, tmp_path / "other"))
    for root in (path, other):
        rebuild_library(root, "IVF32,SQ8")
    assert (path / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_a_manifest_of_before_is_still_read(path: Path) -> None:
    data = json.loads((path / "manifest.json").read_text())
    for info in data["indexes"].values():
        for name in ("goal", "chosen_rows", "on_disk", "recall"):
            del info[name]
    (path / "manifest.json").write_text(json.dumps(data))
    assert tune_library(path)["image"].figures.recall_10 == 1.0


@pytest.mark.parametrize("factory", ["Nonsense", "IVF100000,SQ8"])
def test_an_index_that_cannot_be_made_changes_nothing(factory: str, path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(LibraryError, match="cannot be made"):
        rebuild_library(path, factory)
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_an_index_that_is_not_there_is_one_line(path: Path) -> None:
    with pytest.raises(LibraryError, match="no audio index"):
        tune_library(path, names=["audio"])
