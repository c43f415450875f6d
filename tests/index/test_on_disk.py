from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unprompt.errors import LibraryError
from unprompt.index.on_disk import build_on_disk, extend_on_disk
from unprompt.index.vector_index import VectorIndex
from unprompt.types import Embeddings
from vectors import blocks_of, clustered

ROW = {"IVF16,SQ8": 16 + 8, "IVF16,SQfp16": 32 + 8, "IVF16,Flat": 64 + 8, "IVF16,PQ4x4": 2 + 8}


@pytest.fixture(scope="module")
def corpus() -> Embeddings:
    return clustered(3000)


@pytest.mark.parametrize("factory", sorted(ROW))
@pytest.mark.parametrize("parts", [1, 5])
def test_building_in_parts_gives_the_same_file(factory: str, parts: int, corpus: Embeddings, tmp_path: Path) -> None:
    whole = VectorIndex.build(lambda: blocks_of(corpus), 3000, 16, factory)
    whole.write(tmp_path / "whole")
    part_bytes = 3000 * ROW[factory] // parts + 1
    index = build_on_disk(lambda: blocks_of(corpus), 3000, 16, factory, tmp_path / "joined", part_bytes)
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()
    for found, expected in zip(index.search(corpus[:40], 7), whole.search(corpus[:40], 7), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["joined", "whole"]


def test_rows_can_be_put_behind_those_on_disk(corpus: Embeddings, tmp_path: Path) -> None:
    old = build_on_disk(lambda: blocks_of(corpus[:2000]), 2000, 16, "IVF16,SQ8", tmp_path / "old", 10_000)
    extended = extend_on_disk(tmp_path / "old", blocks_of(corpus[2000:]), "IVF16,SQ8", tmp_path / "new", 10_000)
    expected = VectorIndex.read(tmp_path / "old", "IVF16,SQ8")
    expected.add(corpus[2000:])
    assert (len(old), len(extended)) == (2000, 3000)
    for found, other in zip(
        extended.search(corpus, 5, "nprobe=4"), expected.search(corpus, 5, "nprobe=4"), strict=True
    ):
        np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("factory", ["Flat", "HNSW8,SQ8", "IVF16,PQ4x4fs"])
def test_what_has_no_plain_lists_cannot_stay_on_disk(factory: str, corpus: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="cannot stay on disk"):
        build_on_disk(lambda: blocks_of(corpus), 3000, 16, factory, tmp_path / "index", 10_000)
    assert not list(tmp_path.iterdir())


def test_vectors_that_no_encoder_made_leave_nothing_behind(corpus: Embeddings, tmp_path: Path) -> None:
    bad = np.concatenate([corpus[:2500], corpus[2500:] * 3])
    with pytest.raises(LibraryError, match="norm"):
        build_on_disk(lambda: blocks_of(bad), 3000, 16, "IVF16,SQ8", tmp_path / "index", 5_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory through Linux's /proc")
def test_a_mapped_index_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    corpus = clustered(40_000, 64)
    VectorIndex.build(lambda: blocks_of(corpus, 4096), len(corpus), 64, "IVF16,Flat").write(tmp_path / "index")
    script = """
import sys
from pathlib import Path
from unprompt.index.vector_index import VectorIndex
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
VectorIndex.read(Path(sys.argv[2]))  # loads the library
before = anonymous()
index = VectorIndex.read(Path(sys.argv[1]), mapped=sys.argv[3] == "mapped")
print(anonymous() - before)
"""
    VectorIndex.build(lambda: blocks_of(corpus[:9]), 9, 64).write(tmp_path / "small")

    def grown(how: str) -> int:
        arguments = [sys.executable, "-c", script, str(tmp_path / "index"), str(tmp_path / "small"), how]
        return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)

    size = (tmp_path / "index").stat().st_size
    assert grown("read") > 0.8 * size
    assert grown("mapped") < 0.1 * size
