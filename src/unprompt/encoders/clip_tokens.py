"""CLIP's tokenizer, for counting: the text encoders of Stable Diffusion 1, 2 and XL cut a prompt by its tokens."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MERGES = "clip_merges.txt.gz"
START, END = "<start_of_text>", "<end_of_text>"
_SUFFIX = "</w>"
_COUNTED = 1 << 16
"""Words whose counts are kept."""
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_token_ids(texts: Sequence[str]) -> list[list[int]]:
    """The ids of N texts, without start and end: those of open_clip's ``SimpleTokenizer.encode``.

    Example:
        >>> clip_token_ids(["a photo, a cat"])
        [[320, 1125, 267, 320, 2368]]
    """
    encodings = _tokenizer().encode_batch_fast([clean(text) for text in texts], add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def clip_token_counts(texts: Sequence[str]) -> list[int]:
    """How many ids `clip_token_ids` gives for each of N texts.

    No token crosses white space, so the words' counts add up, and prompts share most of their words.
    """
    return [sum(_count_word(word) for word in clean(text).split()) for text in texts]


@lru_cache(_COUNTED)
def _count_word(word: str) -> int:
    return len(_tokenizer().encode(word, add_special_tokens=False).ids)


def comma_id() -> int:
    """The id of a comma that ends a word."""
    return clip_token_ids([","])[0][0]


def clean(text: str) -> str:
    """The text as CLIP was trained on it: encoding mended, HTML entities resolved, white space joined, lower case."""
    # A lone surrogate cannot be tokenized; such strings come from badly decoded file names.
    text = text.encode("utf-8", "replace").decode("utf-8")
    # What is plain needs no mending, and ftfy takes longer than the rest.
    if not (text.isascii() and text.isprintable()) or "&" in text:
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    data = files("unprompt.encoders").joinpath("data", MERGES).read_bytes()
    merges = [(first, second) for first, second in map(str.split, gzip.decompress(data).decode().split("\n"))]
    letters = _byte_letters()
    words = [*letters, *(letter + _SUFFIX for letter in letters), *(first + second for first, second in merges)]
    tokenizer = Tokenizer(
        models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges, end_of_word_suffix=_SUFFIX)
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (START, END)])
    split = pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def _byte_letters() -> list[str]:
    """GPT-2's 256 letters for the 256 bytes, in the order of CLIP's ids: those that print as themselves come first."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, printing), *(chr(256 + i) for i in range(256 - len(printing)))]
