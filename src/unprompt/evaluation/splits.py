"""Splits of a data set: by prompt, by near-duplicate prompts, by artist, and at random.

Every split is a function of the data and a seed alone: it does not depend on their order.
"""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unprompt.encoders.training.data import prompt_group, split_of
from unprompt.evaluation.metrics.fragments import artists_of
from unprompt.evaluation.metrics.scores import EvaluationError, require
from unprompt.types import Embeddings

logger = logging.getLogger(__name__)

Labels = NDArray[np.int64]
"""(N,) int64: items of one group have one label."""

NEAR = 0.7
"""Cosine of sentence embeddings from which on strong entries of Kaggle's competition took prompts for duplicates."""

THESIS_SHARES = (0.90, 0.05, 0.05)
"""Training, dev and test of the thesis's split."""

_BLOCK = 8_000_000
_UNSURE = 1e-5


def group_key(prompt: str) -> str:
    """What near duplicates share: their `prompt_group`, or the prompt itself where it has no words."""
    return prompt_group(prompt) or unicodedata.normalize("NFKC", prompt).strip()


def split_by_prompt(prompts: Sequence[str]) -> list[str]:
    """The split of each prompt, "train", "dev" or "test", 80 : 10 : 10; prompts of the same words are in one split.

    This is the split that the packaged weights were trained with: only its "test" is new to them.
    """
    return [split_of(prompt) for prompt in prompts]


def split_by_near_prompt(
    prompts: Sequence[str], embeddings: Embeddings | None = None, threshold: float = NEAR
) -> list[str]:
    """As `split_by_prompt`, but whatever chain of near duplicates joins is in one split; see `near_groups`.

    A group goes where `split_of` puts its alphabetically first key. Groups differ from those that the packaged weights
    were trained with: some of "test" here was training there.

    Prompts of one template ("dog by X") chain into one group at 0.7; a warning says when most of the prompts did.

    Args:
        prompts: N prompts.
        embeddings: (N, D) sentence embeddings of them; those of all-MiniLM-L6-v2 by default.
        threshold: the cosine from which on two prompts are near duplicates, above 0, up to 1.

    Raises:
        EvaluationError: the embeddings do not fit, the threshold is out of range, or scipy is missing.
        EncoderError: the sentence encoder's package is missing.
    """
    if not prompts:
        return []
    keys = [group_key(prompt) for prompt in prompts]
    labels = join_labels(near_prompt_groups(prompts, embeddings, threshold), _numbered(keys))
    largest = int(np.bincount(labels[np.unique(_numbered(keys), return_index=True)[1]]).max())
    if 2 * largest > len(set(keys)) > 1:
        logger.warning(
            "one near-duplicate group holds %d of %d distinct prompts at cosine %g: raise the threshold",
            *(largest, len(set(keys)), threshold),
        )
    return _split_groups(keys, labels)


def split_by_artist(prompts: Sequence[str], artists: Collection[str] = ()) -> list[str]:
    """The split of each prompt, so that no artist is credited in two of them; 80 : 10 : 10 of the artists.

    Prompts that share artists, directly or through others, are in one split. A prompt without artists is a group with
    those of the same words.

    Args:
        prompts: N prompts.
        artists: keys of known artists, as `unprompt.pictures.split.split_prompt` takes them.

    Raises:
        EvaluationError: scipy is missing.
    """
    if not prompts:
        return []
    named = [sorted(artists_of(prompt, artists)) or [f"\0{group_key(prompt)}"] for prompt in prompts]
    nodes = {key: node for node, key in enumerate(sorted({key for keys in named for key in keys}))}
    pairs = [(nodes[keys[0]], nodes[key]) for keys in named for key in keys]
    left, right = np.array(pairs, dtype=np.int64).T
    labels = _components(left, right, len(nodes))[[nodes[keys[0]] for keys in named]]
    return _split_groups([keys[0].lstrip("\0") for keys in named], labels)


def split_at_random(ids: Sequence[str], seed: int = 0, shares: Sequence[float] = THESIS_SHARES) -> list[str]:
    """The thesis's split: every picture for itself, so that a prompt can be in training and test at once.

    Pictures are ordered by a hash of seed and id, then cut by the shares, each rounded down and the rest given to
    training.

    Args:
        ids: N ids of pictures, all different.
        seed: another seed gives another split.
        shares: of training, dev and test; they add up to 1.

    Raises:
        EvaluationError: an id is there twice, or the shares do not add up.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise EvaluationError(f"shares {tuple(shares)} of training, dev and test: give three that add up to 1")
    twice = next((identity for identity, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise EvaluationError(f"id {twice!r} is there twice: give every picture an id of its own")
    order = sorted(range(len(ids)), key=lambda i: _digest(f"{seed}\0{ids[i]}"))
    # Ten decimals undo what binary fractions lose: 0.05 * 100 is 5.
    dev, test = (int(round(share * len(ids), 10)) for share in shares[1:])
    splits = ["train"] * len(ids)
    for place, i in enumerate(order):
        splits[i] = "test" if place < test else "dev" if place < test + dev else "train"
    return splits


def near_prompt_groups(prompts: Sequence[str], embeddings: Embeddings | None, threshold: float = NEAR) -> Labels:
    """Near-duplicate groups of N prompts, by embeddings that are given or made here."""
    if embeddings is not None and len(embeddings) != len(prompts):
        raise EvaluationError(f"{len(embeddings)} embeddings of {len(prompts)} prompts: give one a prompt")
    distinct = sorted(set(prompts))
    if embeddings is None:
        from unprompt.evaluation.metrics.sentence_cosine import load_encode

        rows = load_encode()(distinct)
    else:
        first = {prompt: i for i, prompt in reversed(list(enumerate(prompts)))}
        rows = embeddings[[first[prompt] for prompt in distinct]]
    at = {prompt: row for row, prompt in enumerate(distinct)}
    return near_groups(rows, threshold)[[at[prompt] for prompt in prompts]]


def near_groups(embeddings: Embeddings, threshold: float = NEAR) -> Labels:
    """The connected components of the graph that joins rows whose cosine is `threshold` or more.

    All pairs are compared, a block at a time. Cosines within rounding of the threshold are computed again in float64,
    so that neither the blocks nor the number of threads decide.

    Args:
        embeddings: (N, D) rows of norm 1.
        threshold: above 0, up to 1.

    Returns:
        (N,) labels from 0.

    Raises:
        EvaluationError: the threshold is out of range, or scipy is missing.
    """
    if not 0 < threshold <= 1:
        raise EvaluationError(f"near-duplicate threshold {threshold}: use a cosine above 0, up to 1")
    total = len(embeddings)
    labels = np.arange(total, dtype=np.int64)
    step = max(1, _BLOCK // max(1, total))
    for start in range(0, total, step):
        cosines = embeddings[start : start + step] @ embeddings[start:].T  # (b, N - start)
        left, right = np.nonzero(cosines >= threshold - _UNSURE)
        sure = cosines[left, right] >= threshold + _UNSURE
        left, right = left + start, right + start
        doubtful = np.flatnonzero(~sure)
        sure[doubtful] = _exact(embeddings, left[doubtful], right[doubtful]) >= threshold
        labels = _components(labels[left[sure]], labels[right[sure]], total)[labels]
    return labels


def join_labels(first: Labels, second: Labels) -> Labels:
    """The finest grouping of N items that keeps together what either of two groupings does."""
    offset = int(first.max(initial=-1)) + 1
    return _components(first, second + offset, offset + int(second.max(initial=-1)) + 1)[first]


def _exact(rows: Embeddings, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("nd,nd->n", rows[left].astype(np.float64), rows[right].astype(np.float64)))


def _components(left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]], total: int) -> Labels:
    """The component of each of `total` nodes in the graph of the edges (left, right)."""
    sparse = require("grouping by near duplicates or artists", "scipy.sparse", "scipy")
    graph = sparse.coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(total, total))
    graph.data[:] = 1
    components = sparse.csgraph.connected_components(graph.tocsr().astype(bool), directed=False)[1]
    return np.asarray(components, dtype=np.int64)


def _numbered(keys: Sequence[str]) -> Labels:
    return np.unique(np.array(keys, dtype=object), return_inverse=True)[1].astype(np.int64)


def _split_groups(keys: Sequence[str], labels: Labels) -> list[str]:
    """Each group goes where its first key in alphabetical order does."""
    first: dict[int, str] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        first[label] = min(key, first.get(label, key))
    splits = {label: split_of(key) for label, key in first.items()}
    return [splits[label] for label in labels.tolist()]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
