"""Captions to token ids and back: a byte-level BPE trained on the corpus, or a model's own ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unprompt.captioners.interface import CaptionerError
from unprompt.index.files import write_durably

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
_KNOWN_ENDS = ((BEGIN, END), ("[CLS]", "[SEP]"), ("<|startoftext|>", "<|endoftext|>"))
"""First and last token of captions, by the names that models use; GPT-2 has one for both."""


@dataclass(frozen=True, slots=True)
class CaptionTokenizer:
    """A tokenizer with the three tokens that every captioner needs.

    Attributes:
        tokenizer: of the `tokenizers` library.
        pad: never predicted, and another than `end`.
        begin: the first token of every caption.
        end: the last.
    """

    tokenizer: Tokenizer
    pad: int
    begin: int
    end: int

    @property
    def vocabulary(self) -> int:
        """How many tokens there are, with the special ones."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text between `begin` and `end`; a text that is too long loses its last words' tokens.

        Args:
            texts: N captions.
            max_tokens: the longest result, with both special tokens.
        """
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = self.tokenizer.encode_batch(clean, add_special_tokens=False)
        return [[self.begin, *encoding.ids[: max_tokens - 2], self.end] for encoding in encodings]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The texts of token ids; each ends at its first `end`, and special tokens leave no trace."""
        texts = []
        for row in rows:
            ids = [int(token) for token in row]
            ids = ids[: ids.index(self.end, 1)] if self.end in ids[1:] else ids
            kept = [token for token in ids if token not in (self.pad, self.begin, self.end)]
            texts.append(" ".join(self.tokenizer.decode(kept).split()))
        return texts

    def padded(self, rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """(N, longest) ids, filled with `pad`."""
        out = np.full((len(rows), max(map(len, rows), default=0)), self.pad, dtype=np.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    def save(self, path: Path) -> None:
        """Writes ``tokenizer.json``."""
        text = self.tokenizer.to_str(pretty=False)
        write_durably(path, lambda file: file.write(text.encode("utf-8")))


def train_bpe(texts: Iterable[str], vocabulary: int) -> CaptionTokenizer:
    """Trains a byte-level BPE (Sennrich et al., 2016), so that no text has unknown tokens.

    Args:
        texts: the corpus; a text that occurs often weighs as often.
        vocabulary: most tokens, at least 259: the bytes and the special tokens.

    Raises:
        CaptionerError: the vocabulary is too small.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + 3:
        raise CaptionerError(f"tokenizer.vocabulary is {vocabulary}: give {len(alphabet) + 3} or more")
    tokenizer = Tokenizer(models.BPE())
    # With a space before the first word too, a word is the same token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer, "the trained BPE")


def load_tokenizer(path: Path) -> CaptionTokenizer:
    """Reads a ``tokenizer.json``, ours or a model's own; a model without a padding token is given one.

    Raises:
        CaptionerError: the file cannot be read, or names no first and last token.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise CaptionerError(f"no tokenizer {path}: name a tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise CaptionerError(f"{path} is no tokenizer ({' '.join(str(error).split())}): name another file") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _wrapped(tokenizer, str(path))


def _wrapped(tokenizer: Tokenizer, name: str) -> CaptionTokenizer:
    for begin, end in _KNOWN_ENDS:
        last = tokenizer.token_to_id(end)
        if last is None:
            continue
        first = tokenizer.token_to_id(begin)
        pad = next((i for token in (PAD, "[PAD]") if (i := tokenizer.token_to_id(token)) is not None), None)
        if pad is None:
            pad = tokenizer.get_vocab_size(with_added_tokens=True)
            tokenizer.add_special_tokens([PAD])
        return CaptionTokenizer(tokenizer, pad, last if first is None else first, last)
    ends = ", ".join(end for _, end in _KNOWN_ENDS)
    raise CaptionerError(f"{name} has no end-of-text token ({ends}): name another tokenizer")
