"""A change of a library is killed at every step that touches the disk; it is then either not made or wholly made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeEncoder, colour_picture
from unprompt.builders.build import build_library
from unprompt.builders.vocabulary import add_fragments
from unprompt.index.compact import compact_library
from unprompt.index.figures import REPORT_FILE
from unprompt.index.library import Library
from unprompt.index.manifest import LOCK, MANIFEST, Manifest
from unprompt.index.rebuild import rebuild_library
from unprompt.index.remove import remove_rows
from unprompt.types import Entry, Fragment, Picture


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it and tidy up."""


def add(path: Path, work: Path) -> None:
    picture = Picture(str(colour_picture(work / "new.png", "red", seed=5)))
    build_library([[Entry("new", picture)]], path, FakeEncoder(), workers=0)


def remove(path: Path, work: Path) -> None:
    remove_rows(path, ["*picture-0001.png", "*picture-0020.png"])


def vocabulary(path: Path, work: Path) -> None:
    add_fragments(path, [Fragment("green", "flavor")], FakeEncoder())


def rebuild(path: Path, work: Path) -> None:
    rebuild_library(path, "IVF4,SQ8")


def compact(path: Path, work: Path) -> None:
    compact_library(path, 40)


def state(path: Path) -> tuple[int, int, int, str, int]:
    library = Library.open(path)
    assert library.verify() == []
    assert library.image_index is not None
    assert len(library.image_index) == len(library)
    factory = library.manifest.indexes["image"].factory
    counts = (len(library), library.manifest.counts["prompts"], len(library.vocabulary))
    return *counts, factory, len(library.manifest.shards)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> bool:
    """Runs `change` with every rename, deletion and staged write counted, and kills it before number `step`."""
    steps = iter(range(10_000))
    real_replace, real_unlink = Path.replace, Path.unlink

    def replace(self: Path, target: Any) -> Any:
        if next(steps) == step:
            raise Killed
        return real_replace(self, target)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if next(steps) == step:
            raise Killed
        real_unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", unlink)
        # A killed process runs no clean-up either.
        patch.setattr("unprompt.index.writer.LibraryWriter.__exit__", lambda self, *_: self._lock.release())
        try:
            change()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("change", [add, remove, vocabulary, rebuild, compact])
def test_killed_at_any_step(
    change: Callable[[Path, Path], None], library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_fragments(library_path, [Fragment("red", "flavor")], FakeEncoder())
    before = state(library_path)
    shutil.copytree(library_path, tmp_path / "done")
    change(tmp_path / "done", tmp_path)
    after = state(tmp_path / "done")
    assert before != after
    outcomes = []
    for step in range(200):
        copy = tmp_path / f"step-{step}"
        shutil.copytree(library_path, copy)
        if not killed_at(step, monkeypatch, lambda copy=copy: change(copy, tmp_path)):  # type: ignore[misc]
            break
        found = state(copy)  # a reader sees one or the other, before anything was mended
        assert found in (before, after)
        outcomes.append(found)
        if found == before:
            change(copy, tmp_path)
        else:
            add_fragments(copy, [], FakeEncoder())  # any writer finishes what was left
        assert state(copy) == after
        files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
        assert files <= {*Manifest.read(copy).files, MANIFEST, LOCK, REPORT_FILE}
    else:
        pytest.fail("the change never ended")
    assert before in outcomes
    assert after in outcomes
