"""The registry, recognition, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fakes import colour_folder, colour_picture
from unprompt.builders.sources import FORMATS, open_source
from unprompt.errors import SourceError
from unprompt.types import Entry, Skipped


def test_the_formats() -> None:
    assert list(FORMATS) == [
        "folder", "pairs", "metadata", "diffusiondb", "comfyui-templates", "prompts", "clip-retrieval", "embeddings",
        "webdataset", "datasets", "coco",
    ]  # fmt: skip


def test_importing_the_registry_is_light() -> None:
    heavy = ["torch", "faiss", "pyarrow", "sd_parsers", "PIL.PngImagePlugin"]
    code = f"import sys, unprompt.builders.sources; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_errors_are_one_line_that_names_the_value(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.docx").write_text("x")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.md").write_text("x")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "prompts.txt").write_text("a cat")
    cases = {
        "gone": "no such file or folder",
        "empty": "is an empty folder",
        "words.docx": "not recognised; a file can be",
        "docs": "nothing recognised; looked for",
        "lists": "only prompts.txt; name that file itself",
    }
    for name, words in cases.items():
        with pytest.raises(SourceError, match=words) as caught:
            open_source(str(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="unknown format 'lmdb'; choose one of auto, folder"):
        open_source(str(tmp_path), "lmdb")
    for odd in ("", "a\0b"):
        with pytest.raises(SourceError):
            open_source(odd)


@pytest.mark.parametrize("format", list(FORMATS))
def test_a_format_forced_on_the_wrong_thing_says_so(format: str, tmp_path: Path) -> None:
    wrong = tmp_path / ("a.pdf" if format in ("folder", "metadata") else "folder")
    if wrong.suffix:
        wrong.write_text("x")
    else:
        wrong.mkdir()
    with pytest.raises(SourceError):
        open_source(str(wrong), format)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour_folder(tmp_path / "pictures", 1)
    monkeypatch.chdir(tmp_path)
    (entry,) = open_source("pictures")
    assert isinstance(entry, Entry)
    assert entry.picture is not None
    assert entry.picture.path == str(tmp_path / "pictures" / "picture-0000.png")


def test_sources_are_lazy(tmp_path: Path) -> None:
    """The first entry comes before the second picture is looked at."""
    colour_folder(tmp_path, 3)
    entries = iter(open_source(str(tmp_path)))
    assert isinstance(next(entries), Entry)
    (tmp_path / "picture-0001.txt").unlink()
    assert isinstance(next(entries), Skipped)


def test_recognition_prefers_what_says_more(tmp_path: Path) -> None:
    colour_picture(tmp_path / "a.png", "red")
    assert open_source(str(tmp_path)).format == "metadata"
    (tmp_path / "a.txt").write_text("a red thing")
    assert open_source(str(tmp_path)).format == "folder"
    (tmp_path / "pairs.csv").write_text("image,prompt\na.png,a red thing\n")
    assert open_source(str(tmp_path)).format == "pairs"
    (tmp_path / "part-000001").mkdir()
    assert open_source(str(tmp_path)).format == "diffusiondb"
    assert open_source(str(tmp_path), "folder").format == "folder"
