from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from small_models import save_siglip
from unprompt.encoders.clip_tokens import clip_token_ids, comma_id
from unprompt.errors import EncoderError, QueryError
from unprompt.search.budget import TokenBudget, chunked_length, load_budget
from unprompt.search.policy import Policy

COMMA = -1


def by_words(limit: int) -> TokenBudget:
    """Every word, comma included, is a token."""
    return TokenBudget("words", limit, 0, lambda texts: [len(text.replace(",", " , ").split()) for text in texts])


def test_separators_are_counted() -> None:
    """clip-interrogator 0.6 checks the length of phrases without the ", " between them."""
    budget = by_words(5)
    assert budget.fits(["one, two, three", "one two three four five", "one, two, three, four"]) == [True, True, False]
    assert budget.cut(["one", "two", "three", "four"]) == ["one", "two", "three"]
    assert budget.cut(["one", "two", "three", "four", "five"], separator=" ") == ["one", "two", "three", "four", "five"]


def test_the_clip_budget_is_what_the_encoder_reads() -> None:
    budget = load_budget("clip")
    assert (budget.limit, budget.chunk) == (75, 0)
    words = ["cat"] * 75
    assert budget.fits([" ".join(words), " ".join([*words, "cat"])]) == [True, False]
    parts = ["cat"] * 60
    kept = budget.cut(parts)
    assert len(kept) == 38, "38 cats and 37 commas"
    assert len(clip_token_ids([", ".join(kept)])[0]) == 75


@pytest.mark.parametrize(("target", "limit"), [("clip-150", 150), ("clip-225", 225), ("longclip", 246)])
def test_longer_budgets(target: str, limit: int) -> None:
    budget = load_budget(target)
    assert budget.limit == limit
    # Single words in one run, without commas: nothing is padded.
    assert budget.fits([" ".join(["cat"] * limit), " ".join(["cat"] * (limit + 1))]) == [True, False]


def test_no_budget_keeps_everything() -> None:
    budget = load_budget("none")
    assert budget.fits(["cat " * 9999]) == [True]
    assert budget.cut(["a", " ", "b" * 9999]) == ["a", "b" * 9999]


def test_cut_stops_at_the_first_part_that_does_not_fit() -> None:
    assert by_words(4).cut(["a b", "c d e", "f"]) == ["a b"]
    assert by_words(4).cut(["", "a b ", "\n", "c"]) == ["a b", "c"]
    assert by_words(4).cut([]) == []


def test_a_first_part_too_long_is_cut_at_its_commas_then_its_words_then_inside() -> None:
    assert by_words(4).cut(["a b, c d, e f", "g"]) == ["a b"]
    assert by_words(5).cut(["a b, c d, e f", "g"]) == ["a b, c d"]
    assert by_words(2).cut([", a b, c", "g"]) == ["a b"]
    assert by_words(3).cut(["one two three four, five"]) == ["one two three"]
    letters = TokenBudget("letters", 4, 0, lambda texts: [len(text) for text in texts])
    assert letters.cut(["supercalifragilistic"]) == ["supe"]
    assert by_words(0).cut(["one"]) == []


def test_cutting_is_the_longest_leading_run() -> None:
    rng = np.random.default_rng(0)
    budget = load_budget("clip")
    for _ in range(30):
        parts = [" ".join(["cat"] * rng.integers(1, 9)) for _ in range(rng.integers(1, 40))]
        kept = budget.cut(parts)
        assert kept == parts[: len(kept)]
        assert budget.fits([", ".join(kept)]) == [True]
        assert len(kept) == len(parts) or budget.fits([", ".join(parts[: len(kept) + 1])]) == [False]


def layout(ids: list[int], chunk: int, back: int) -> list[list[int]]:
    """AUTOMATIC1111's way, token by token, with the chunks themselves."""
    chunks: list[list[int]] = [[]]
    last = -1
    for token in ids:
        current = chunks[-1]
        if token == COMMA:
            last = len(current)
        elif back and len(current) == chunk and last != -1 and len(current) - last <= back:
            moved = current[last + 1 :]
            chunks[-1] = current[: last + 1] + [0] * len(moved)
            chunks.append(moved)
            last = -1
        if len(chunks[-1]) == chunk:
            chunks.append([])
            last = -1
        chunks[-1].append(token)
    return chunks


def test_chunks_are_laid_out_as_automatic1111_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        size, back = int(rng.integers(3, 12)), int(rng.integers(0, 8))
        ids = [COMMA if draw < 0.25 else 1 for draw in rng.random(rng.integers(0, 60))]
        chunks = layout(ids, size, back)
        expected = (len(chunks) - 1) * size + len(chunks[-1])
        assert chunked_length(ids, COMMA, size, back) == expected


def test_chunks_on_hand_worked_numbers() -> None:
    word = 1
    # Ten places a chunk: the fragment of five that would straddle the end moves, and leaves four places of padding.
    ids = [word] * 5 + [COMMA] + [word] * 5
    assert chunked_length(ids, COMMA, chunk=10, back=5) == 15
    assert chunked_length(ids, COMMA, chunk=10, back=4) == 11, "too far back: it is torn"
    assert chunked_length([word] * 10, COMMA, chunk=10, back=5) == 10
    assert chunked_length([], COMMA) == 0


def test_the_padding_of_chunks_counts() -> None:
    budget = load_budget("clip-150")
    ten = " ".join(["cat"] * 10)
    prompt = ", ".join([ten] * 13)
    assert len(clip_token_ids([prompt])[0]) == 142
    # Six tens and their commas are 66 places, the seventh moves and leaves 9 empty; so does the next chunk's.
    assert chunked_length(clip_token_ids([prompt])[0], comma_id()) == 75 + 75 + 10
    assert budget.fits([prompt]) == [False]
    assert len(budget.cut([ten] * 13)) == 12


def test_network_tags_are_no_tokens() -> None:
    budget = load_budget("clip")
    full = " ".join(["cat"] * 75)
    assert budget.fits([f"{full} <lora:some_long_name:0.8>"]) == [True]
    assert budget.cut([f"{full} <lora:some long name:0.8>"]) == [f"{full} <lora:some long name:0.8>"]


def test_room_for_what_is_added_later() -> None:
    policy = Policy(prefix="one two", suffix="three")
    budget = by_words(7).around(policy.finish)
    kept = budget.cut(["a", "b", "c"])
    assert kept == ["a"]
    assert by_words(7).fits([policy.finish("a"), policy.finish("a, b")]) == [True, False]


@pytest.mark.parametrize("target", ["", "CLIP", "77", "clip-75", "clip:x", "siglip:", "none:"])
def test_unknown_targets(target: str) -> None:
    with pytest.raises(QueryError, match=r"use one of clip, clip-150, clip-225, longclip, siglip"):
        load_budget(target)


def test_siglip_needs_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no encoder was given: use siglip:FOLDER"):
        load_budget("siglip")
    encoder: Any = SimpleNamespace(name="starter")
    with pytest.raises(QueryError, match="encoder 'starter' has none to offer"):
        load_budget("siglip", encoder)
    with pytest.raises(QueryError, match="there is no folder"):
        load_budget(f"siglip:{tmp_path / 'nothing'}")
    pytest.importorskip("transformers")
    with pytest.raises(EncoderError, match="no tokenizer can be loaded from"):
        load_budget(f"siglip:{tmp_path}")


def test_siglip_counts_with_its_own_tokenizer_whatever_its_pad_id(tmp_path: Path) -> None:
    """clip-interrogator 0.6 takes a last id that is not 0 for a full context; here no pad id is 0, and unknown is."""
    transformers = pytest.importorskip("transformers")
    folder = save_siglip(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    assert tokenizer.pad_token_id != 0
    assert tokenizer("a", padding="max_length", max_length=64)["input_ids"][-1] != 0
    encoder: Any = SimpleNamespace(name=f"transformers:{folder}")
    for budget in (load_budget("siglip", encoder), load_budget(f"siglip:{folder}")):
        assert budget.limit == 64
        counts = budget.count_tokens(["a photo of a cat", "Ωμέγα"])
        assert counts == [len(tokenizer(text)["input_ids"]) for text in ("a photo of a cat", "Ωμέγα")]
        assert budget.fits(["a cat", "a cat " * 64]) == [True, False]
        kept = budget.cut(["a photo of a cat"] * 40)
        assert 1 <= len(kept) < 40
        assert budget.count_tokens([", ".join(kept)])[0] <= 64
