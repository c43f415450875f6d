from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fakes import FakeEncoder
from unprompt.builders.seed import seed_from_ci
from unprompt.builders.vocabulary import VocabularyReport, add_fragments
from unprompt.errors import SourceError
from unprompt.index.text_cache import TextCache
from unprompt.types import Fragment

TERMS = ["soft light", "", "neon", "neon", "haze"]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "flavors.txt").write_text("\n".join(TERMS) + "\n", encoding="utf-8")
    return tmp_path / "flavors.txt"


def ci_cache(path: Path, encoder: FakeEncoder) -> Path:
    embeds = encoder.encode_texts(TERMS).astype(np.float16)
    digest = hashlib.sha256(",".join(TERMS).encode()).hexdigest()
    save_file({"embeds": embeds, "hash": np.array([ord(letter) for letter in digest], dtype=np.int8)}, path)
    return path


def test_what_clip_interrogator_embedded_is_not_embedded_again(
    library_path: Path, tmp_path: Path, listed: Path, encoder: FakeEncoder
) -> None:
    cache = TextCache(encoder, "float16", tmp_path / "cache")
    assert seed_from_ci(ci_cache(tmp_path / "c.safetensors", FakeEncoder()), listed, encoder, cache) == 3
    before = encoder.texts_encoded
    fragments = [Fragment(text, "flavor") for text in ("neon", "haze", "fog")]
    assert add_fragments(library_path, fragments, encoder, cache=cache) == VocabularyReport(3, 0, 1, 2)
    assert encoder.texts_encoded == before + 1


@pytest.mark.parametrize(
    ("other", "words"),
    [(FakeEncoder(dim=16), "16 dimensions, fake has 32"), ("shuffled", "made by another model than fake")],
)
def test_another_models_cache_is_refused(
    tmp_path: Path, listed: Path, encoder: FakeEncoder, other: FakeEncoder | str, words: str
) -> None:
    cache = TextCache(encoder, "float16", tmp_path / "cache")
    file = ci_cache(tmp_path / "c.safetensors", other if isinstance(other, FakeEncoder) else FakeEncoder())
    if other == "shuffled":
        from safetensors.numpy import load_file

        tensors = load_file(file)
        save_file({**tensors, "embeds": np.ascontiguousarray(tensors["embeds"][:, ::-1])}, file)
    with pytest.raises(SourceError, match=words):
        seed_from_ci(file, listed, encoder, cache)
    assert not cache.take(["neon"])[0].any()
