from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.ofa.shared import write_vocabulary
from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.ofa.tokenizer import OfaTokenizer


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> OfaTokenizer:
    return OfaTokenizer(folder)


def size_of(folder: Path) -> int:
    return len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))


def test_codes_and_bins_follow_the_vocabulary(tokenizer: OfaTokenizer, folder: Path) -> None:
    words = size_of(folder)
    assert (tokenizer.bos, tokenizer.pad, tokenizer.eos) == (0, 1, 2)
    assert [tokenizer.id(token) for token in ("<code_0>", "<code_8191>", "<bin_0>", "<bin_999>")] == [
        words,
        words + 8191,
        words + 8192,
        words + 9191,
    ]
    assert len(tokenizer) == words + 9192


def test_the_official_vocabulary_gets_the_official_size(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, size=50265)
    tokenizer = OfaTokenizer(tmp_path)
    assert len(tokenizer) == 59457
    assert tokenizer.id("<mask>") == 50264
    assert tokenizer.id("<bin_0>") == 58457


def test_words_are_merged_and_the_space_belongs_to_them(tokenizer: OfaTokenizer) -> None:
    assert tokenizer.encode(" the cat") == [0, tokenizer.id("Ġthe"), tokenizer.id("Ġcat"), 2]
    assert tokenizer.encode("the") == [0, tokenizer.id("the"), 2]


def test_bins_and_codes_are_one_token_each_in_a_text(tokenizer: OfaTokenizer) -> None:
    ids = tokenizer.encode(" cat<bin_7><bin_10> <code_12> <mask>")
    assert ids[1:-1] == [
        *(tokenizer.id(token) for token in ("Ġcat", "<bin_7>", "<bin_10>", "Ġ", "<code_12>", "<mask>")),
    ]
    assert tokenizer.decode([ids]) == ["cat<bin_7><bin_10> <code_12>"]


@given(text=st.text(max_size=40))
def test_any_text_comes_back(folder: Path, text: str) -> None:
    tokenizer = _cached(folder)
    clean = text.encode("utf-8", "replace").decode("utf-8").strip()
    if "<" not in clean:
        assert tokenizer.decode([tokenizer.encode(clean)]) == [clean]


_tokenizers: dict[Path, OfaTokenizer] = {}


def _cached(folder: Path) -> OfaTokenizer:
    if folder not in _tokenizers:
        _tokenizers[folder] = OfaTokenizer(folder)
    return _tokenizers[folder]


def test_special_tokens_leave_no_trace(tokenizer: OfaTokenizer) -> None:
    cat = tokenizer.id("Ġcat")
    assert tokenizer.decode([[0, cat, 3, 1, 1, 2], [2], []]) == ["cat", "", ""]


def test_a_folder_without_a_whole_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    del vocabulary["<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(CaptionerError, match=r"vocab\.json has no <pad>"):
        OfaTokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(CaptionerError, match="holds no BPE"):
        OfaTokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CaptionerError, match=r"has no merges\.txt"):
        OfaTokenizer(tmp_path)
    with pytest.raises(CaptionerError, match="has no '<bin_1000>'"):
        _cached(folder).id("<bin_1000>")
