"""What runs in a cluster's workers: plain functions, which the driver makes tasks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from unprompt.builders.decode import Decoded, decode
from unprompt.builders.identity import Ids
from unprompt.encoders import load_encoder
from unprompt.errors import EncoderError, SourceError
from unprompt.types import Embeddings, Encoder, Entry, Pixels, Skipped

Chunk = Sequence[Entry | Skipped]


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder that each worker loads for itself."""

    name: str
    fingerprint: str
    device: str = "cpu"


class Encoded(NamedTuple):
    """(N, D) embeddings of a shard's distinct pictures, and (M, D) of its new prompts."""

    images: Embeddings
    texts: Embeddings


class _NoPixels:
    """In place of an encoder's preprocessing where a picture is only to be checked."""

    def __call__(self, image: Image.Image) -> Pixels:
        return np.empty(0, dtype=np.float32)

    def to_dict(self) -> dict[str, object]:
        return {}


def inspect_chunk(chunk: Chunk, known: Ids) -> list[Decoded | Skipped]:
    """Reads, hashes and opens the pictures of a chunk, and keeps none: "pixels" are empty where one is new."""
    return list(decode(chunk, _NoPixels(), known, workers=0))


def encode_shard(
    spec: EncoderSpec, batch_size: int, places: Sequence[tuple[int, int]], texts: Sequence[str], *chunks: Chunk
) -> Encoded:
    """Encodes the pictures and prompts of a shard, in the batches that a build on one machine makes of them.

    Args:
        spec: the encoder.
        batch_size: pictures a call of it.
        places: for each picture, its chunk and its place there.
        texts: prompts.
        chunks: entries.

    Raises:
        EncoderError: the encoder that is installed here is not the driver's.
        SourceError: a picture that could be opened before cannot be opened here.
    """
    encoder = _encoder(spec)
    images = [np.zeros((0, encoder.dim), dtype=np.float32)]
    for start in range(0, len(places), batch_size):
        entries = [chunks[chunk][at] for chunk, at in places[start : start + batch_size]]
        images.append(encoder.encode_images([_pixels(entry, encoder) for entry in entries]))
    none = np.zeros((0, encoder.dim), dtype=np.float32)
    return Encoded(np.concatenate(images), encoder.encode_texts(list(texts)) if texts else none)


def _pixels(entry: Entry | Skipped, encoder: Encoder) -> Pixels:
    (item,) = decode([entry], encoder.preprocess, np.zeros(0, "S20"), workers=0)
    if isinstance(item, Skipped) or item.pixels is None:
        reason = f"{item.reason}: {item.detail}" if isinstance(item, Skipped) else "it changed"
        name = item.uri if isinstance(item, Skipped) else item.entry.picture
        raise SourceError(f"{name} was read before and cannot be now ({reason}); every worker must see the same files")
    return item.pixels


@lru_cache(maxsize=1)
def _encoder(spec: EncoderSpec) -> Encoder:
    encoder = load_encoder(spec.name, device=spec.device)
    if encoder.fingerprint != spec.fingerprint:
        raise EncoderError(
            f"a worker has other weights of {spec.name} ({encoder.fingerprint[:12]}) than the driver "
            f"({spec.fingerprint[:12]}); install the same unprompt and weights on every machine"
        )
    return encoder
