"""Every example in README.md and docs/ is run: console blocks as commands, python blocks as doctests, on real weights.

The examples of a page share one folder, in which the pictures that they speak of are made first, and run in the order
in which they stand; so a page may query the library that its own first lines built.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import colour_folder, colour_picture

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.docs


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader of the docs would have one: pictures with prompts, a photo, a list of terms."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    colour_folder(tmp_path / "pictures", 16)
    colour_folder(tmp_path / "more", 20)
    colour_picture(tmp_path / "photo.png", "red", seed=99, size=(200, 160))
    (tmp_path / "my-artists.csv").write_text("text,kind,count\nby A. Painter,artist,3\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a castle in the clouds\na portrait of a cat\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, place: Path) -> None:
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            run_doctest(text, names, page)
        else:
            for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
                run_command(command)


def run_doctest(text: str, names: dict[str, object], page: Path) -> None:
    parsed = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), 0)
    assert parsed.examples, f"a python block of {page.name} has no >>> example:\n{text}"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failures: list[str] = []
    runner.run(parsed, out=failures.append, clear_globs=False)
    names.update(parsed.globs)
    assert not failures, "".join(failures)


def run_command(command: str) -> None:
    assert shlex.split(command)[0] in ("unprompt", "cat"), f"{command!r}: only unprompt's own commands are run"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
