"""The pictures of a training set, as models read them: features from the cache, and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unprompt.captioners.config import TrainConfig
from unprompt.captioners.data.augment import Augmentation
from unprompt.captioners.data.corpus import Neighbours, Rows
from unprompt.captioners.data.neighbours import find_neighbours
from unprompt.captioners.data.pairs import Pair
from unprompt.captioners.features import Backbone, FeatureCache, View
from unprompt.captioners.grid import load_grid
from unprompt.captioners.texts import texts_fingerprint
from unprompt.encoders.registry import load_encoder
from unprompt.errors import EncoderError, SourceError
from unprompt.index.library import Library
from unprompt.index.shards import PICTURES
from unprompt.types import Embeddings, Encoder, Pixels, Preprocess

Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is, and how much there is at most."""


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a training set, as the model reads them.

    Attributes:
        cache: holds the features.
        rows: (N, 1 + views) rows of the cache.
        backbone: its name.
        neighbours: N rows, or None for a captioner that is told none.
        encoder: the name of the encoder that embeds neighbours' prompts, and its `texts_fingerprint`.
    """

    cache: FeatureCache
    rows: Rows
    backbone: str
    neighbours: Neighbours | None = None
    encoder: tuple[str, str] = ("", "")


def cache_pictures(
    pairs: Sequence[Pair], backbone: Backbone, folder: Path, config: TrainConfig, progress: Progress = silent
) -> tuple[list[Pair], FeatureCache, Rows]:
    """Computes the features that are not cached yet.

    Args:
        pairs: with pictures.
        backbone: the frozen backbone.
        folder: the cache.
        config: its `data` says how many augmented views there are; pictures of the training split alone have any.
        progress: see `Progress`.

    Returns:
        The pairs whose pictures can be read, the cache, and (N, 1 + views) rows of it.

    Raises:
        SourceError: no picture can be read.
    """
    data = config.data
    cache = FeatureCache(folder, backbone, Augmentation(data.rotation, data.flip, data.erasing))
    pictures = [pair.picture for pair in pairs if pair.picture is not None]
    views = 1 + data.views
    done, total = 0, len(pairs) + data.views * sum(pair.split == "train" for pair in pairs)

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress("features", done, total)

    rows = np.repeat(cache.rows([View(picture) for picture in pictures], count)[:, None], views, axis=1)
    train = np.array([i for i, pair in enumerate(pairs) if pair.split == "train"], dtype=np.int64)
    for number in range(1, views):
        rows[train, number] = cache.rows([View(pictures[i], number) for i in train], count)
    readable: NDArray[np.bool_] = np.all(rows >= 0, axis=1)
    if not readable.any():
        raise SourceError(f"none of {len(pairs)} pictures can be read, the first because: {cache.skipped[0].detail}")
    return [pair for pair, keep in zip(pairs, readable, strict=True) if keep], cache, rows[readable]


class EncoderBackbone:
    """An encoder's picture embeddings, for the same cache."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.fingerprint = encoder.fingerprint
        self.preprocess: Preprocess = encoder.preprocess

    def encode(self, pixels: Pixels) -> Embeddings:
        """(N, H, W, 3) uint8 -> (N, D) float32."""
        return self._encoder.encode_images(list(pixels))


def embed_pictures(pairs: Sequence[Pair], encoder: Encoder, folder: Path, progress: Progress = silent) -> Embeddings:
    """(N, D) embeddings of pictures that can be read, from the cache where it holds them."""
    cache = FeatureCache(folder, EncoderBackbone(encoder))
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress("embeddings", done, len(pairs))

    rows = cache.rows([View(pair.picture) for pair in pairs if pair.picture is not None], count)
    embeddings = cache.read(rows).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.ascontiguousarray(embeddings)


@dataclass(frozen=True, slots=True)
class Means:
    """What computes the pictures' side of a training set, and where it is kept.

    Attributes:
        cache: the folder of features and embeddings.
        backbone: the name of what makes grids, see `grid.load_grid`.
        encoder: the name of what finds neighbours where there is no library.
        device: where they run.
    """

    cache: Path
    backbone: str = "efficientnet-lite2"
    encoder: str = "starter"
    device: str = "cpu"


def prepare_pictures(
    pairs: Sequence[Pair],
    config: TrainConfig,
    means: Means,
    library: Library | None = None,
    progress: Progress = silent,
) -> tuple[list[Pair], Pictures]:
    """Computes, or reads from the cache, what captioners learn from: features, and neighbours if any are asked for.

    Args:
        pairs: with pictures.
        config: its `neighbours` is how many there are, its `data` says how many augmented views.
        means: see there.
        library: where the pairs come from, if anywhere: its own embeddings find neighbours, and nothing is encoded
            again.
        progress: see `Progress`.

    Returns:
        The pairs whose pictures can be read, and their pictures.

    Raises:
        SourceError: no picture can be read.
        EncoderError: the backbone or encoder cannot be had, or is not the one the library was built with.
    """
    backbone = load_grid(means.backbone, means.device)
    pairs, cache, rows = cache_pictures(pairs, backbone, means.cache, config, progress)
    if not config.neighbours:
        return pairs, Pictures(cache, rows, means.backbone)
    name = means.encoder if library is None else library.manifest.encoder.name
    encoder = load_encoder(name, device=means.device)
    if library is None:
        embeddings = embed_pictures(pairs, encoder, means.cache, progress)
    elif encoder.fingerprint == library.manifest.encoder.fingerprint:
        stored = np.concatenate(list(library.arrays(PICTURES, "img_emb")))
        embeddings = stored[[pair.row for pair in pairs]]
    else:
        raise EncoderError(f"{library.path} was built with another {encoder.name}: build it again")
    neighbours = find_neighbours(pairs, embeddings, config.neighbours, encoder.encode_texts)
    told_by = (encoder.name, texts_fingerprint(encoder.name, encoder.fingerprint))
    return pairs, Pictures(cache, rows, means.backbone, neighbours, told_by)
