"""Tokenizers of captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unprompt.captioners.interface import CaptionerError
from unprompt.captioners.tokenizer import CaptionTokenizer, load_tokenizer, train_bpe

CORPUS = ["a red house by the sea", "a red dog, oil on canvas", "portrait of a dog by Greg Rutkowski"] * 3
BPE = train_bpe(CORPUS, 320)


def test_captions_begin_and_end() -> None:
    (row,) = BPE.encode(["a red house"], 20)
    assert row[0] == BPE.begin
    assert row[-1] == BPE.end
    assert len({BPE.pad, BPE.begin, BPE.end}) == 3
    assert BPE.decode([row]) == ["a red house"]


def test_long_captions_are_cut_but_end() -> None:
    (row,) = BPE.encode(["a red house by the sea"], 4)
    assert len(row) == 4
    assert row[-1] == BPE.end
    assert BPE.decode([row]) == ["a red"]


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_every_text_comes_back_but_for_its_spaces(text: str) -> None:
    (row,) = BPE.encode([text], 1000)
    expected = text.encode("utf-8", "replace").decode()
    assert BPE.decode([row]) == [" ".join(expected.split())]


def test_a_word_is_the_same_token_wherever_it_stands() -> None:
    first, second = BPE.encode(["dog by a dog"], 20)[0][1:-1], BPE.encode(["dog"], 20)[0][1:-1]
    assert first[: len(second)] == second == first[-len(second) :]


def test_padding_and_what_follows_the_end_leave_no_trace() -> None:
    rows = BPE.padded(BPE.encode(["a dog", "a red house by the sea"], 20))
    assert rows.shape[0] == 2
    assert (rows[0] == BPE.pad).any()
    assert BPE.decode(rows.tolist()) == ["a dog", "a red house by the sea"]
    assert BPE.decode([[*BPE.encode(["a dog"], 9)[0], *BPE.encode(["a sea"], 9)[0]]]) == ["a dog"]


def test_training_twice_gives_the_same_tokenizer_and_files_load(tmp_path: Path) -> None:
    assert train_bpe(CORPUS, 320).tokenizer.to_str() == BPE.tokenizer.to_str()
    BPE.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert (loaded.pad, loaded.begin, loaded.end, loaded.vocabulary) == (BPE.pad, BPE.begin, BPE.end, BPE.vocabulary)
    assert loaded.encode(CORPUS, 20) == BPE.encode(CORPUS, 20)


def gpt2_like(tmp_path: Path) -> CaptionTokenizer:
    """As GPT-2's own file: one special token, which begins and ends, and none to pad with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(tmp_path / "gpt2.json"))
    return load_tokenizer(tmp_path / "gpt2.json")


def test_a_models_own_tokenizer_is_given_a_padding_token(tmp_path: Path) -> None:
    own = gpt2_like(tmp_path)
    assert own.begin == own.end != own.pad == own.vocabulary - 1
    (row,) = own.encode(["a red dog"], 20)
    assert own.decode([row, row[1:]]) == ["a red dog", "a red dog"]


def test_bad_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match=r"no tokenizer .*nowhere\.json: name a tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CaptionerError, match=r"bad\.json is no tokenizer"):
        load_tokenizer(tmp_path / "bad.json")
    with pytest.raises(CaptionerError, match=r"tokenizer\.vocabulary is 100: give 259 or more"):
        train_bpe(CORPUS, 100)
