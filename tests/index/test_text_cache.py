from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import FakeEncoder
from unprompt.index.files import cache_folder
from unprompt.index.text_cache import TextCache


def cache(folder: Path, dtype: str = "float32") -> TextCache:
    return TextCache(FakeEncoder(dim=4), dtype, folder)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def test_what_was_put_is_found_by_another(tmp_path: Path) -> None:
    kept = rows(3)
    cache(tmp_path).put(["a", "b", "ü\ud800"], kept)
    found, embeddings = cache(tmp_path).take(["b", "x", "ü\ud800"])
    assert found.tolist() == [True, False, True]
    np.testing.assert_array_equal(embeddings, [kept[1], np.zeros(4), kept[2]])


def test_precisions_are_kept_apart(tmp_path: Path) -> None:
    cache(tmp_path).put(["a"], rows(1))
    assert not cache(tmp_path, "float16").take(["a"])[0].any()


def test_nothing_put_nothing_written(tmp_path: Path) -> None:
    cache(tmp_path).put([], rows(0))
    assert list(tmp_path.iterdir()) == []
    assert cache(tmp_path).take([])[1].shape == (0, 4)


def test_many_segments_are_joined_and_nothing_is_lost(tmp_path: Path) -> None:
    one = cache(tmp_path)
    kept = rows(20)
    for i in range(20):
        one.put([f"text {i}"], kept[i : i + 1])
    one.put(["text 3"], kept[3:4])  # the very same file again
    assert len(list(one.folder.iterdir())) == 20
    one.compact()
    assert len(list(one.folder.iterdir())) == 1
    for reader in (one, cache(tmp_path)):
        found, embeddings = reader.take([f"text {i}" for i in range(20)])
        assert found.all()
        np.testing.assert_array_equal(embeddings, kept)


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: b"", lambda data: b"\xff" * len(data)])
def test_a_damaged_segment_is_left_out(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture) -> None:
    one = cache(tmp_path)
    one.put(["a"], rows(1))
    [path] = one.folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    one.put(["b"], rows(1, seed=1))
    assert cache(tmp_path).take(["a", "b"])[0].tolist() == [False, True]
    assert f"{path} is left out" in caplog.text


def test_the_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNPROMPT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert TextCache(FakeEncoder(), "float16").folder.parent == tmp_path / "texts"
    monkeypatch.delenv("UNPROMPT_CACHE")
    assert cache_folder().name == "unprompt"
