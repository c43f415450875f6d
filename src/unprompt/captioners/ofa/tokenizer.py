"""OFA's tokens: GPT-2's byte-level BPE, then ``<code_i>`` for pieces of pictures and ``<bin_i>`` for coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unprompt.captioners.interface import CaptionerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
CODES, BINS = 8192, 1000
FILES = ("vocab.json", "merges.txt")


class OfaTokenizer:
    """Texts to token ids and back.

    Ids are those of the folder's vocabulary, then 8,192 codes, then 1,000 bins: 50,265 + 9,192 = 59,457 of the
    official models.

    Args:
        folder: holds ``vocab.json``, token -> id, and ``merges.txt``, one merge a line, best first.

    Raises:
        CaptionerError: a file is missing or damaged, or the vocabulary lacks a special token.

    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _byte_level_bpe(folder)
        for kind, count in (("code", CODES), ("bin", BINS)):
            self._tokenizer.add_tokens([f"<{kind}_{i}>" for i in range(count)])
        self.bos, self.pad, self.eos = (self.id(token) for token in SPECIAL[:3])
        self._special = frozenset(self.id(token) for token in SPECIAL)

    def __len__(self) -> int:
        """How many tokens there are, codes and bins included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def id(self, token: str) -> int:
        """The id of one token, such as "<bin_0>".

        Raises:
            CaptionerError: there is no such token.

        """
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise CaptionerError(f"OFA's vocabulary has no {token!r}: give the vocab.json that came with the model")
        return int(number)

    def encode(self, text: str) -> list[int]:
        """The ids of a text between ``<s>`` and ``</s>``. A leading space belongs to the first word, and counts."""
        # A lone surrogate cannot be tokenized.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return [self.bos, *self._tokenizer.encode(clean, add_special_tokens=False).ids, self.eos]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """The texts of rows of ids, stripped: special tokens leave no trace, codes and bins stay as they are."""
        kept = [[int(token) for token in row if int(token) not in self._special] for row in rows]
        return [text.strip() for text in self._tokenizer.decode_batch(kept, skip_special_tokens=False)]


def _byte_level_bpe(folder: Path) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary, merges = (folder / name for name in FILES)
    for path in (vocabulary, merges):
        if not path.is_file():
            raise CaptionerError(f"{folder} has no {path.name}: copy it from where the model came from")
    try:
        bpe = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises bare exceptions for a damaged file
        detail = " ".join(str(error).split())[:200]
        raise CaptionerError(f"{folder} holds no BPE ({detail}): copy vocab.json and merges.txt again") from error
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    missing = [token for token in SPECIAL if tokenizer.token_to_id(token) is None]
    if missing:
        raise CaptionerError(f"{vocabulary} has no {missing[0]}: give the vocab.json that came with the model")
    mask = AddedToken("<mask>", lstrip=True)  # takes the space before it along, as in BART
    tokenizer.add_special_tokens([*SPECIAL[:-1], mask])
    return tokenizer
