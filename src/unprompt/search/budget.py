"""Token budgets: how long a prompt may be for what it is for, and cutting it there at fragment boundaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from unprompt.errors import EncoderError, QueryError
from unprompt.types import Encoder

SEPARATOR = ", "

TARGETS = ("clip", "clip-150", "clip-225", "longclip", "siglip", "siglip:FOLDER", "none")
"""What `load_budget` takes."""

CLIP_CONTENT = 75
"""77 less the start and the end."""
LONGCLIP_CONTENT = 246
"""248 less the start and the end."""
SIGLIP_TOKENS = 64
"""What SigLIP's tokenizer adds is counted, for its versions add different things."""

COMMA_BACKTRACK = 20
"""AUTOMATIC1111's default: when a chunk is full, what follows a comma at most so far back moves to the next chunk."""

CountTokens = Callable[[Sequence[str]], list[int]]

# Networks are named in the prompt, and taken out of it before it is tokenized.
_NETWORK = re.compile(r"<\w+:[^<>]+>")


@dataclass(frozen=True)
class TokenBudget:
    """How many tokens a prompt may have.

    Attributes:
        name: the target it was loaded for.
        limit: the most tokens, those of separators included; None for no limit.
        chunk: the tokens of a chunk where a prompt is cut into several; 0 where it is not.
        count_tokens: counts the tokens of N prompts by the target's own tokenizer, without what it adds itself.
    """

    name: str
    limit: int | None
    chunk: int
    count_tokens: CountTokens

    def fits(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of N whole prompts is within the limit."""
        if self.limit is None:
            return [True] * len(texts)
        return [count <= self.limit for count in self.count_tokens(texts)] if texts else []

    def cut(self, parts: Sequence[str], separator: str = SEPARATOR) -> list[str]:
        """The longest run of leading parts that fits when they are joined; blank parts are left out.

        When the first part alone is too long it is cut at its own commas, else between its words, else inside the
        first word; the result is empty only when not even one character fits.
        """
        parts = [part.strip() for part in parts if part.strip()]
        if not parts or self.limit is None:
            return parts
        fitting = self._leading(parts, separator)
        if fitting:
            return parts[:fitting]
        first = self._shorten(parts[0])
        return [first] if first else []

    def around(self, finish: Callable[[str], str]) -> TokenBudget:
        """This budget for prompts that ``finish`` is still to be applied to, such as `Policy.finish`."""
        count = self.count_tokens
        return replace(self, count_tokens=lambda texts: count([finish(text) for text in texts]))

    def _leading(self, pieces: Sequence[str], separator: str) -> int:
        """How many leading pieces fit together: all runs shorter than the first one that does not."""
        low, high = 0, len(pieces)
        while low < high:
            middle = (low + high + 1) // 2
            if self.fits([separator.join(pieces[:middle])])[0]:
                low = middle
            else:
                high = middle - 1
        return low

    def _shorten(self, text: str) -> str:
        for pieces, joint in (
            ([piece for piece in text.split(",") if piece.strip()], ","),
            (_words(text), " "),
            (list(text), ""),
        ):
            fitting = self._leading(pieces, joint)
            if fitting:
                return joint.join(pieces[:fitting]).strip(" ,;")
        return ""


def load_budget(target: str, encoder: Encoder | None = None) -> TokenBudget:
    """The budget of a target.

    Args:
        target: "clip" (77 tokens, 75 of them the prompt's), "clip-150" and "clip-225" (two and three chunks of 75, laid
            out as AUTOMATIC1111 does, its padding counted), "longclip" (248), "siglip" (64), or "none". SigLIP models
            differ in their tokenizers: it is the encoder's own, or that of a folder: "siglip:FOLDER".
        encoder: whose tokenizer "siglip" uses.

    Raises:
        QueryError: the target is unknown, or "siglip" has no tokenizer to count with.
        EncoderError: the tokenizer cannot be loaded.
    """
    name, colon, folder = target.partition(":")
    if name == "none" and not colon:
        return TokenBudget(target, None, 0, _count_clip)
    if name == "clip" and not colon:
        return TokenBudget(target, CLIP_CONTENT, 0, _count_clip)
    if name == "longclip" and not colon:
        return TokenBudget(target, LONGCLIP_CONTENT, 0, _count_clip)
    if target in ("clip-150", "clip-225"):
        return TokenBudget(target, int(target.removeprefix("clip-")), CLIP_CONTENT, _count_chunked)
    if name == "siglip" and bool(colon) == bool(folder):
        return TokenBudget(target, SIGLIP_TOKENS, 0, _siglip_counter(folder, encoder))
    raise QueryError(f"unknown token budget {target!r}: use one of {', '.join(TARGETS)}")


def chunked_length(ids: Sequence[int], comma: int, chunk: int = CLIP_CONTENT, back: int = COMMA_BACKTRACK) -> int:
    """How many places a prompt's tokens take when they are laid out in chunks as AUTOMATIC1111 does.

    A full chunk gives what follows its last comma to the next one, if that is at most ``back`` tokens, and is padded,
    so that a fragment is not torn in two; a longer one is torn, as it is there. The padding counts, but for the last
    chunk's.

    Args:
        ids: the prompt's tokens, without start and end.
        comma: the id of the token at which fragments end.
        chunk: tokens in a chunk.
        back: how far a comma may lie back.
    """
    full, used, last = 0, 0, -1
    for token in ids:
        if token != comma and used == chunk and last >= 0 and used - last <= back:
            full, used, last = full + 1, used - last - 1, -1
        if used == chunk:
            full, used, last = full + 1, 0, -1
        elif token == comma:
            last = used
        used += 1
    return full * chunk + used


def _count_clip(texts: Sequence[str]) -> list[int]:
    from unprompt.encoders.clip_tokens import clip_token_counts

    return clip_token_counts([_NETWORK.sub("", text) for text in texts])


def _count_chunked(texts: Sequence[str]) -> list[int]:
    from unprompt.encoders.clip_tokens import clip_token_ids, comma_id

    comma = comma_id()
    return [chunked_length(ids, comma) for ids in clip_token_ids([_NETWORK.sub("", text) for text in texts])]


def _siglip_counter(folder: str, encoder: Encoder | None) -> CountTokens:
    scheme, _, name = (encoder.name if encoder else "").partition(":")
    if folder:
        place = Path(folder).expanduser()
        if not place.is_dir():
            raise QueryError(f"there is no folder {folder!r}: give one that a tokenizer was saved to")
    elif scheme == "transformers":
        from unprompt.encoders.hub import TOKENIZER_EXTRAS, TOKENIZER_FILES, local_folder, obtain

        place = local_folder(name) or obtain(name, [TOKENIZER_FILES], extras=TOKENIZER_EXTRAS)
    else:
        given = f"encoder {encoder.name!r} has none to offer" if encoder else "no encoder was given"
        raise QueryError(f"a siglip budget counts with its model's tokenizer, and {given}: use siglip:FOLDER")
    return partial(_count_with, _saved_tokenizer(place))


def _saved_tokenizer(folder: Path) -> Callable[..., dict[str, list[list[int]]]]:
    from unprompt.encoders.torchvision_fix import ensure_torchvision

    ensure_torchvision()
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise EncoderError(
            f"transformers cannot be imported ({error}): pip install 'unprompt[transformers]'"
        ) from error
    try:
        loaded: Callable[..., dict[str, list[list[int]]]] = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds for a file that is missing or damaged
        detail = " ".join(str(error).split())[:200]
        raise EncoderError(f"no tokenizer can be loaded from {folder} ({detail}): save it there again") from error
    return loaded


def _count_with(tokenizer: Callable[..., dict[str, list[list[int]]]], texts: Sequence[str]) -> list[int]:
    # Counted without padding and cutting: no id says where a text ends, for pad ids differ, and 0 is often a word.
    plain = [_NETWORK.sub("", text) for text in texts]
    return [len(ids) for ids in tokenizer(plain, padding=False, truncation=False)["input_ids"]] if plain else []


def _words(text: str) -> list[str]:
    """Words; a network's tag is one, whatever it holds."""
    return re.findall(r"<\w+:[^<>]+>|\S+", text)
