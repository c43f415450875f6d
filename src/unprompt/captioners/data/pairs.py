"""Pairs of picture and prompt from wherever they come, and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unprompt.captioners.data.text import plain_words
from unprompt.encoders.training.data import SPLITS, prompt_group, split_of
from unprompt.errors import SourceError
from unprompt.types import Entry, Picture, Skipped


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the picture it made; a language model learns from prompts alone.

    Attributes:
        prompt: as the captioner is to write it.
        picture: where it is, or None.
        split: one of `SPLITS`.
        row: its place among the entries it was read from.
    """

    prompt: str
    picture: Picture | None
    split: str
    row: int = 0

    @property
    def group(self) -> str:
        """Pairs of one group have near-duplicate prompts."""
        return prompt_group(self.prompt) or self.prompt


def read_pairs(
    entries: Iterable[Entry | Skipped], *, split: str = "grouped", text: str = "as-is", pictures: bool = True
) -> list[Pair]:
    """Reads pairs from any source, in its order; what was skipped and what has no picture is left out.

    Args:
        entries: of a source, a library or a COCO file.
        split: see `DataConfig.split`.
        text: see `DataConfig.text`.
        pictures: False keeps prompts alone, each distinct one once, for a language model.

    Raises:
        SourceError: nothing is left, or a split that training needs is empty.
    """
    pairs: list[Pair] = []
    seen: set[str] = set()
    for row, entry in enumerate(entries):
        if isinstance(entry, Skipped) or (pictures and entry.picture is None):
            continue
        prompt = plain_words(entry.prompt) if text == "plain" else " ".join(entry.prompt.split())
        if not prompt or (not pictures and prompt in seen):
            continue
        seen.add(prompt)
        picture = entry.picture if pictures else None
        pairs.append(Pair(prompt, picture, split_pair(entry.prompt, picture, split), row))
    for needed in ("train", "dev"):
        if not any(pair.split == needed for pair in pairs):
            what = "pairs of picture and prompt" if pictures else "prompts"
            raise SourceError(f"{len(pairs)} {what} leave none for the {needed} split: give larger sources")
    return pairs


def split_pair(prompt: str, picture: Picture | None, split: str) -> str:
    """The split of a pair, from a hash, so that it stays where it is when other pairs come or go.

    Args:
        prompt: as the source has it.
        picture: where its bytes are.
        split: "grouped" (by the prompt's group, 80 : 10 : 10), "grouped-90-5-5" (its dev and test parts are within
            those of "grouped"), or "ungrouped-90-5-5" (by picture: one prompt may be in all three).
    """
    if split == "grouped":
        return split_of(prompt)
    # Of a path only the name is hashed: moving the folder must not move a picture between splits.
    name = "" if picture is None else picture.uri.replace("\\", "/").rpartition("/")[2]
    key = prompt_group(prompt) if split == "grouped-90-5-5" else f"{name}\0{prompt}"
    bucket = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big") % 20
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def split_counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many pairs each split has."""
    return {name: sum(pair.split == name for pair in pairs) for name in SPLITS}


def pairs_fingerprint(pairs: Sequence[Pair]) -> str:
    """16 hexadecimal digits over the pairs in their order: a run is only resumed on the same ones."""
    whole = hashlib.sha256()
    for pair in pairs:
        uri = "" if pair.picture is None else pair.picture.uri
        whole.update(f"{pair.split}\0{uri}\0{pair.prompt}\n".encode("utf-8", "replace"))
    return whole.hexdigest()[:16]


def file_numbers(pairs: Sequence[Pair]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(N,) a number for each pair's file: the four quarters of a grid have the same."""
    numbers: dict[tuple[str, str | None], int] = {}
    keys = [("", None) if p.picture is None else (p.picture.path, p.picture.member) for p in pairs]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
