"""The pictures against which a vocabulary is calibrated: a sample of the library's own."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.index.calibration import Calibration
from unprompt.index.library import Library
from unprompt.index.shards import PICTURES
from unprompt.index.vocabulary import Vocabulary
from unprompt.types import Embeddings

logger = logging.getLogger(__name__)

SAMPLE = 1000
"""Pictures in a sample: percentiles to a tenth of one percent, in seconds."""

MIN_REFERENCE = 100
"""Fewer pictures say little about the tail of a distribution; a vocabulary is then left without calibration."""


def reference_pictures(library: Library, sample: int = SAMPLE) -> Embeddings:
    """A sample of a library's embedded pictures, (R, D) with R <= `sample`, evenly spaced over its rows."""
    rows = np.unique(np.linspace(0, len(library) - 1, min(sample, len(library))).astype(np.intp))
    taken, start = [np.zeros((0, library.dim), dtype=np.float32)], 0
    for block in library.arrays(PICTURES, PICTURES.arrays[0]):
        taken.append(block[rows[(rows >= start) & (rows < start + len(block))] - start])
        start += len(block)
    return np.concatenate(taken)


def fit(vocabulary: Vocabulary, reference: NDArray[np.floating[Any]], least: int) -> bool:
    """Calibrates `vocabulary` in place; returns False, and does nothing, when `reference` has under `least` rows."""
    if len(reference) < least or not len(vocabulary.terms):
        return False
    logger.info("calibrating %d terms on %d pictures", len(vocabulary.terms), len(reference))
    vocabulary.calibration = Calibration.fit(vocabulary.matrix, np.asarray(reference, dtype=np.float32))
    return True
