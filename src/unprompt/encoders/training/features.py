"""Raw features of all training pictures, computed once by the frozen backbone and kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unprompt.encoders.preprocessing import Preprocessing
from unprompt.encoders.starter_backbone import SHA256, StarterBackbone
from unprompt.encoders.training.data import Example

logger = logging.getLogger(__name__)

Features = Mapping[str, NDArray[np.float16]]
"""Name of a raw feature -> (N, width), row i belonging to example i."""

BATCH = 64
REPORT_EVERY = 2048


def cached_features(
    examples: Sequence[Example], names: Sequence[str], preprocessing: Preprocessing, cache: Path
) -> Features:
    """Computes the features of all examples, or reads them where the cache holds those of the very same input.

    Args:
        examples: N pictures.
        names: raw features, as `StarterBackbone.features` takes them.
        preprocessing: decides the size at which the pictures are seen.
        cache: a folder; each input has a folder of its own in it, named by a hash.

    Returns:
        One (N, width) float16 array a name, mapped from disk.

    Raises:
        EncoderError: a name is unknown, or the backbone's weights are not there.

    """
    folder = cache / _key(examples, preprocessing)
    missing = [name for name in names if not (folder / f"{name}.npy").is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _extract(examples, missing, preprocessing, folder)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


def _key(examples: Sequence[Example], preprocessing: Preprocessing) -> str:
    """A hash of what the features depend on: the weights, the preprocessing, and which pictures in which order."""
    pictures = [[e.set, e.path.name, e.path.stat().st_size, e.cell] for e in examples]
    facts = json.dumps([SHA256, preprocessing.to_dict(), pictures], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _extract(examples: Sequence[Example], names: Sequence[str], preprocessing: Preprocessing, folder: Path) -> None:
    """Writes one array a name under a temporary name, and renames them all at the end."""
    backbone = StarterBackbone.load()
    arrays: dict[str, np.memmap[tuple[int, ...], np.dtype[np.float16]]] = {}
    started = time.perf_counter()
    for start in range(0, len(examples), BATCH):
        pixels = np.stack([preprocessing(e.open()) for e in examples[start : start + BATCH]])
        for name, value in backbone.features(pixels, names).items():
            if name not in arrays:
                shape = (len(examples), value.shape[1])
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.part", "w+", np.float16, shape)
            arrays[name][start : start + len(value)] = value.numpy()
        if start % REPORT_EVERY == 0:
            rate = (start + len(pixels)) / (time.perf_counter() - started)
            logger.info("features of %d of %d pictures, %.1f/s", start + len(pixels), len(examples), rate)
    for name, array in arrays.items():
        array.flush()
        (folder / f"{name}.part").rename(folder / f"{name}.npy")
