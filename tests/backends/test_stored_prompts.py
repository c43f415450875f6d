"""The default answer over a pushed library takes the library's own prompts' embeddings from the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakeEncoder, colour_picture
from metadata_library import named
from tiny_library import write_library
from unprompt.backends.opening import open_backend, open_store
from unprompt.backends.pushing import push
from unprompt.search.engine import Engine
from unprompt.search.settings import Settings


@pytest.mark.parametrize("settings", [Settings(ingredients=("neighbours", "prompts")), Settings(mode="retrieve")])
def test_no_whole_prompt_is_encoded_and_answers_are_the_folders(
    tmp_path: Path, base_url: str, settings: Settings
) -> None:
    encoder, colours = FakeEncoder(), ("red", "blue", "green", "yellow")
    pictures = [(colour_picture(tmp_path / f"{each}.png", each, seed=3), f"a {each} thing") for each in colours]
    library = write_library(tmp_path / "library", encoder, pictures, {f"{each} words": 2 for each in colours}, [])
    address = named(base_url, f"stored{settings.mode}")
    store = open_store(address)
    push(library, store, index="flat")
    store.close()
    backend = open_backend(address)
    asked = [colour_picture(tmp_path / f"{each}-asked.png", each, seed=700) for each in ("red", "blue")]
    encoded = encoder.texts_encoded
    here = Engine(library, encoder).query(asked, settings=settings)
    there = Engine(backend, encoder).query(asked, settings=settings)
    assert encoder.texts_encoded == encoded
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.final.prompt == ours.final.prompt
        assert theirs.final.score == pytest.approx(ours.final.score, abs=1e-5)
        assert theirs.final.score > 0.1
    backend.close()
