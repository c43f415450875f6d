"""The core types: what flows between sources, encoders, the library and the search engine.

This module imports neither torch nor faiss, and nothing else of the package but its errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings = NDArray[np.float32]
"""(N, D) float32, C-contiguous, every row of L2 norm 1."""

Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, already resized and cropped to an encoder's input."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a picture's bytes are, without opening it.

    Attributes:
        path: the file that holds it: a picture, or a zip or tar archive.
        member: the name inside the archive, or None for a plain file.
        cell: "tl", "tr", "bl" or "br" when the picture is one quarter of a 2x2 grid, else None.
    """

    path: str
    member: str | None = None
    cell: str | None = None

    @property
    def uri(self) -> str:
        """One line that names the picture: ``path``, ``path!member``, either followed by ``#cell``."""
        name = self.path if self.member is None else f"{self.path}!{self.member}"
        return name if self.cell is None else f"{name}#{self.cell}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a source found: a prompt, and the picture it made if there is one.

    Attributes:
        prompt: the prompt, stripped, never empty.
        picture: where the picture is, or None for a prompt alone.
        metadata: any of the keys of `METADATA_KEYS`, and others, which are kept as JSON.
        count: how often the source holds this very prompt (prompts alone only).
    """

    prompt: str
    picture: Picture | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was left out, and why.

    Attributes:
        uri: the picture or row, as `Picture.uri` names it.
        reason: a short stable phrase, counted in the build report: "no prompt", "unreadable", ...
        detail: what exactly was wrong.
    """

    uri: str
    reason: str
    detail: str = ""


METADATA_KEYS = {
    "source": str,
    "license": str,
    "model": str,
    "sampler": str,
    "cfg": float,
    "steps": int,
    "seed": str,
    "width": int,
    "height": int,
    "image_nsfw": float,
    "prompt_nsfw": float,
    "negative_prompt": str,
    "timestamp": str,
}
"""The metadata that has a column of its own in a library, and its type. Width and height are in pixels."""


class Source(Protocol):
    """A place that entries come from. Iterating twice gives the same entries in the same order."""

    format: str
    """The name it goes by in the registry, such as "folder"."""

    def __iter__(self) -> Iterator[Entry | Skipped]: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One corpus entry as the library holds it.

    Attributes:
        id: 20 hexadecimal digits, from the content of the picture, its cell and its prompt.
        prompt: the prompt that made the picture.
        image: the picture's uri at the time it was built in, or None for a prompt alone.
        metadata: the keys of `METADATA_KEYS` that are known, "sha256" of the picture's file, and any others.
    """

    id: str
    prompt: str
    image: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def settled(self) -> Record:
        """The record with its metadata as a dict, where that is still to be read from the library."""
        return self if isinstance(self.metadata, dict) else replace(self, metadata=dict(self.metadata))


@dataclass(frozen=True, slots=True)
class Fragment:
    """One vocabulary entry, such as "oil on canvas".

    Attributes:
        text: the fragment as it was listed; of an artist, the bare name, which prompts hold as "by NAME".
        kind: "artist", "medium", "movement", "flavor", "trending", "negative", or a user's own.
        source: the list it came from.
        count: how often it was seen in a corpus; 0 when unknown.
        namespace: whose list it is: "stock", or a user's own, which stands beside it.
        born: year of an artist's birth, 0 when unknown.
        died: year of an artist's death, 0 when unknown or alive.
    """

    text: str
    kind: str
    source: str = ""
    count: int = 0
    namespace: str = "stock"
    born: int = 0
    died: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: ``rank`` 1 is best, ``score`` is a cosine and higher is better.

    ``row`` is its position in the index that was searched, None where that is not on this machine.
    """

    id: str
    score: float
    rank: int
    row: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a candidate prompt with its evidence.

    Attributes:
        text: the words, as they stand in the prompt.
        source: where they come from: "neighbour:ID", "prompts", "vocabulary:LIST", a captioner's name.
        kind: "prompt", a fragment kind, or "caption".
        score: the cosine of this text alone with the picture.
        gain: what adding it brought to the cosine of the whole prompt; estimated in modes that encode only the whole
            prompt, 0 where it is not known.
    """

    text: str
    source: str
    kind: str
    score: float
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole prompt with the evidence for each of its parts; ``score`` is its cosine with the picture."""

    prompt: str
    score: float
    parts: tuple[Part, ...] = ()


class Preprocess(Protocol):
    """Turns a decoded RGB picture into an encoder's input size. Picklable: it runs in worker processes."""

    def __call__(self, image: Image.Image) -> Pixels: ...

    def to_dict(self) -> dict[str, Any]:
        """What it does, as JSON for a library's manifest."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Maps pictures and texts into one space. It alone normalises."""

    name: str
    dim: int
    fingerprint: str
    """64 hexadecimal digits: a sha256 over the weights and the preprocessing."""
    preprocess: Preprocess

    def encode_images(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        """Embeds N pictures as (N, dim). Arrays are taken as already preprocessed, pictures are preprocessed first."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, dim). Texts that are too long are cut, never refused."""
        ...


@runtime_checkable
class DraftEncoder(Protocol):
    """An encoder that also embeds texts roughly and sooner, for searches that score what they find once more."""

    @property
    def drafts(self) -> bool:
        """Whether drafts are sooner on this machine; where not, they are what `Encoder.encode_texts` says."""
        ...

    def draft_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, dim), rows of norm 1, each at most 0.02 away from `Encoder.encode_texts`'s."""
        ...


class Captioner(Protocol):
    """Writes candidate prompts for pictures."""

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int,
        max_tokens: int,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """Returns for each picture its candidates, best first."""
        ...
