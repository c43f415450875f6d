from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakeEncoder, colour_folder
from tiny_library import write_library
from unprompt.index.library import Library
from unprompt.types import Fragment

FRAGMENTS = [
    Fragment("Claude Monet", "artist", "artists.txt"),
    Fragment("oil painting", "medium", "mediums.txt"),
    Fragment("photo", "medium", "mediums.txt"),
    Fragment("vivid red", "flavor", "flavors.txt"),
    Fragment("deep blue", "flavor", "flavors.txt"),
    Fragment("ugly red", "negative", "negative.txt"),
]
PROMPTS = {"red": 3, "a blue whale, photo": 1}


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """Forty colour pictures with their prompts."""
    return colour_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def library(pairs: list[tuple[Path, str]], tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The pictures, two prompts without pictures, and six fragments."""
    return write_library(tmp_path_factory.mktemp("full") / "library", FakeEncoder(), pairs, PROMPTS, FRAGMENTS)
