"""The cache of a frozen backbone's features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from fakes import colour_folder, colour_picture
from tiny_captioner import TinyGrid
from unprompt.captioners.data.augment import Augmentation
from unprompt.captioners.features import FeatureCache, View, augmented
from unprompt.errors import EncoderError
from unprompt.pictures.opening import open_picture, read_bytes
from unprompt.types import Picture


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    return [View(Picture(str(path))) for path, _ in colour_folder(tmp_path / "pictures", 10)]


def direct(view: View) -> np.ndarray:
    grid = TinyGrid()
    pixels = grid.preprocess(open_picture(view.picture, read_bytes(view.picture)))
    return grid.encode(pixels[None])[0]


def test_the_cache_gives_what_the_backbone_gives(views: list[View], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", TinyGrid(), shard_rows=4)
    found = cache.read(cache.rows(views)[::-1])
    assert found.dtype == np.float16
    assert np.allclose(found, [direct(view) for view in views[::-1]], atol=1e-3)
    assert len(list(cache.folder.glob("*.npy"))) == 3


def test_no_picture_goes_twice_through_the_backbone(views: list[View], tmp_path: Path) -> None:
    grid = TinyGrid()
    doubled = [*views, *views]
    first = FeatureCache(tmp_path / "c", grid, shard_rows=4).rows(doubled)
    assert grid.encoded == 10
    assert (first[:10] == first[10:]).all()
    moved = Path(views[0].picture.path).rename(tmp_path / "elsewhere.png")
    again = FeatureCache(tmp_path / "c", grid, shard_rows=7).rows([View(Picture(str(moved))), *views[1:]])
    assert (again == first[:10]).all()
    assert grid.encoded == 10


def test_a_picture_that_changed_is_seen_again(views: list[View], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    before = cache.rows(views)
    colour_picture(Path(views[0].picture.path), "white", seed=99)
    after = cache.rows(views)
    assert after[0] != before[0]
    assert (after[1:] == before[1:]).all()


def test_another_backbone_has_a_folder_of_its_own(views: list[View], tmp_path: Path) -> None:
    FeatureCache(tmp_path / "c", TinyGrid()).rows(views)
    other = TinyGrid("other")
    FeatureCache(tmp_path / "c", other).rows(views)
    assert other.encoded == 10


def test_what_a_dead_run_left_is_used_up_to_its_last_whole_shard(views: list[View], tmp_path: Path) -> None:
    whole = FeatureCache(tmp_path / "c", TinyGrid(), shard_rows=4)
    expected = whole.read(whole.rows(views))
    (whole.folder / "features-000001.json").unlink()  # died between a shard's array and its names
    (whole.folder / "features-000002.json").unlink()
    (whole.folder / "features-000003.npy.tmp").write_bytes(b"half")
    grid = TinyGrid()
    resumed = FeatureCache(tmp_path / "c", grid, shard_rows=4)
    assert (resumed.read(resumed.rows(views)) == expected).all()
    assert grid.encoded == 6


def test_quarters_of_a_grid_are_pictures_of_their_own(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, 8:] = 255
    Image.fromarray(pixels).save(tmp_path / "grid.png")
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    quarters = [View(Picture(str(tmp_path / "grid.png"), cell=cell)) for cell in ("tl", "tr", "bl", "br")]
    means = cache.read(cache.rows(quarters)).mean(axis=(1, 2))
    assert means.tolist() == [-0.5, 0.5, -0.5, -0.5]


def test_unreadable_pictures_are_noted_and_have_no_row(views: list[View], tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(b"no picture")
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    rows = cache.rows([View(Picture(str(broken))), *views[:2], View(Picture(str(missing)))])
    assert (rows < 0).tolist() == [True, False, False, True]
    assert sorted(skipped.reason for skipped in cache.skipped) == ["missing", "unreadable"]


def test_augmented_views_are_cached_beside_the_picture(views: list[View], tmp_path: Path) -> None:
    grid = TinyGrid()
    cache = FeatureCache(tmp_path / "c", grid, Augmentation(rotation=90, flip=0.5, erasing=1.0))
    plain, first, second = (cache.read(cache.rows(augmented(views, number))) for number in (0, 1, 2))
    assert grid.encoded == 30
    assert not np.allclose(plain, first)
    assert not np.allclose(first, second)
    again = FeatureCache(tmp_path / "c", grid, Augmentation(rotation=90, flip=0.5, erasing=1.0))
    assert (again.read(again.rows(augmented(views, 1))) == first).all()
    assert grid.encoded == 30
    other = FeatureCache(tmp_path / "c", grid, Augmentation(rotation=45))
    other.rows(views)
    other.rows(augmented(views, 1))
    assert grid.encoded == 40


def test_two_processes_do_not_fill_one_cache(views: list[View], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    cache.rows(views[:1])
    with FileLock(cache.folder / ".lock"):
        assert FeatureCache(tmp_path / "c", TinyGrid()).rows(views[:1]) == cache.rows(views[:1]), (
            "reading needs no lock"
        )
        with pytest.raises(EncoderError, match="being filled by another process"):
            FeatureCache(tmp_path / "c", TinyGrid()).rows(views)


def test_a_damaged_cache_is_named(views: list[View], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", TinyGrid())
    cache.rows(views)
    (cache.folder / "features-000000.json").write_text(json.dumps(["only one"]))
    with pytest.raises(EncoderError, match=r"features-000000\.npy has 10 rows, its names 1: delete"):
        FeatureCache(tmp_path / "c", TinyGrid())


def test_progress_counts_every_view(views: list[View], tmp_path: Path) -> None:
    done: list[int] = []
    FeatureCache(tmp_path / "c", TinyGrid(), shard_rows=4).rows([*views, *views[:3]], done.append)
    assert sum(done) == 13
