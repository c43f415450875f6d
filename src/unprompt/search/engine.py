"""The search engine: a library and its encoder, put together to answer which prompts made a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from unprompt.encoders import load_encoder
from unprompt.errors import LibraryError, QueryError
from unprompt.search.compose import FRAGMENTS_PER_KIND, compose
from unprompt.search.inputs import ImageLike, QueryImage, iterate_images, load_query_image
from unprompt.search.results import QueryResult
from unprompt.search.retrieve import rank_prompts, retrieve_neighbours, retrieve_prompts, same_picture
from unprompt.types import Encoder

if TYPE_CHECKING:
    from unprompt.index.library import Library

MIN_DEPTH = 50
DEPTH_FACTOR = 10
"""Fusion looks this far down each ranking: `DEPTH_FACTOR` * k, and `MIN_DEPTH` at least."""


class Engine:
    """Answers queries with pictures against one library. It keeps nothing between queries.

    Args:
        library: an open library.
        encoder: the one that made the library; by default it is loaded by the name in the library's manifest.
        device: where that encoder runs, such as "cpu" or "cuda".

    Raises:
        LibraryError: the encoder is not the one that made the library.
        EncoderError: the encoder cannot be loaded.
    """

    def __init__(self, library: Library, encoder: Encoder | None = None, device: str = "cpu") -> None:
        self.library = library
        if encoder is None:
            encoder = load_encoder(library.manifest.encoder.name, device=device)
        self.encoder = encoder
        _check_encoder(self.encoder, library)

    def query(
        self,
        images: ImageLike | Iterable[ImageLike],
        k: int = 5,
        kinds: Sequence[str] | None = None,
        batch_size: int = 16,
    ) -> list[QueryResult]:
        """Finds the prompts that may have made each of one or many pictures.

        Args:
            images: paths, PIL pictures, or (H, W, 3) uint8 RGB arrays; an (N, H, W, 3) array is N pictures.
            k: how many prompts, neighbours, and fragments of each kind to return, at least 1.
            kinds: the kinds of fragments to look for; all of the vocabulary's by default, none when empty.
            batch_size: how many pictures are decoded, encoded and searched at a time, at least 1.

        Returns:
            One result for each picture, in their order.

        Raises:
            PictureError: a picture cannot be read.
            QueryError: `k`, `batch_size`, a kind or an array is not as described.
        """
        check_positive("k", k)
        check_positive("batch size", batch_size)
        self.library.vocabulary.check_kinds(kinds or ())
        preprocess = self.encoder.preprocess
        loaded = (load_query_image(image, preprocess, i) for i, image in enumerate(iterate_images(images)))
        results: list[QueryResult] = []
        while batch := list(islice(loaded, batch_size)):
            results += self._query_batch(batch, k, kinds)
        return results

    def _query_batch(self, batch: Sequence[QueryImage], k: int, kinds: Sequence[str] | None) -> list[QueryResult]:
        depth = max(MIN_DEPTH, DEPTH_FACTOR * k)
        queries = self.encoder.encode_images([query.pixels for query in batch])  # (Q, D)
        neighbours = retrieve_neighbours(self.library, queries, depth)
        near = retrieve_prompts(self.library, queries, depth)
        prompts = [
            rank_prompts(found, hits, query.sha256) for query, found, hits in zip(batch, neighbours, near, strict=True)
        ]
        fragments = self.library.vocabulary.top(queries, max(k, FRAGMENTS_PER_KIND), kinds)
        finals = compose(
            queries,
            [ranked[0] if ranked else None for ranked in prompts],
            # The true prompt of a picture that the library holds is not to be improved upon.
            [
                {} if same_picture(found, query.sha256) else pool
                for query, found, pool in zip(batch, neighbours, fragments, strict=True)
            ],
            self.encoder.encode_texts,
        )
        return [
            QueryResult(
                image=query.name,
                final=final,
                prompts=tuple(ranked[:k]),
                neighbours=tuple(found[:k]),
                fragments={kind: scored[:k] for kind, scored in pool.items()},
                recorded=query.recorded,
            )
            for query, final, ranked, found, pool in zip(batch, finals, prompts, neighbours, fragments, strict=True)
        ]


def check_positive(name: str, value: int) -> None:
    """Raises QueryError when a count is below 1."""
    if value < 1:
        raise QueryError(f"{name} is {value}, use 1 or more")


def _check_encoder(encoder: Encoder, library: Library) -> None:
    made_by = library.manifest.encoder
    if (encoder.fingerprint, encoder.dim) != (made_by.fingerprint, made_by.dim):
        raise LibraryError(
            f"{library.path} was built with encoder {made_by.name!r} (weights {made_by.fingerprint[:12]}, "
            f"{made_by.dim} dimensions), this one is {encoder.name!r} (weights {encoder.fingerprint[:12]}, "
            f"{encoder.dim} dimensions); query with the encoder it was built with, or build the library again"
        )
