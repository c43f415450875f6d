"""The search engine: a library and its encoder, put together to answer which prompts made a picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from unprompt.encoders import load_encoder
from unprompt.errors import LibraryError, QueryError
from unprompt.index.contexts import kept_contexts
from unprompt.pictures.names import name_keys
from unprompt.search.artist_names import ARTIST
from unprompt.search.budget import TokenBudget, load_budget
from unprompt.search.captions import captioned_subjects
from unprompt.search.evidence import Evidence, find_evidence
from unprompt.search.final import compose_finals
from unprompt.search.fusion import DEPTH, Fusion
from unprompt.search.ingredients import first_answers
from unprompt.search.inputs import ImageLike, iterate_images, load_query_image
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.modes.default import FRAGMENTS_PER_KIND
from unprompt.search.modes.fast import ranked_terms
from unprompt.search.queries import Query
from unprompt.search.ranked_once import RankedOnce
from unprompt.search.ranker import FragmentRanker
from unprompt.search.reranker import Reranker
from unprompt.search.results import Analysis, QueryResult, ScoredFragment
from unprompt.search.retrieve import as_backend, local_library
from unprompt.search.retrieved import retrieved_finals
from unprompt.search.settings import DEFAULT, FAST, RETRIEVE, Settings
from unprompt.search.stored_texts import PushedTexts, StoredTexts
from unprompt.search.subject import prompt_part, subject_from_prompts
from unprompt.search.text_cache import TextCache
from unprompt.types import Captioner, Encoder, Part

if TYPE_CHECKING:
    from unprompt.backends.protocol import SearchBackend
    from unprompt.index.library import Library

DEPTH_FACTOR = 10
"""The prompts that are shown are fused from so far down each ranking: `DEPTH_FACTOR` * k, and `DEPTH` at least."""


class Engine:
    """Answers queries against one library. It keeps no results between queries, but the embeddings of some texts.

    Args:
        library: an open library, or one that was pushed, from `unprompt.backends.opening.open_backend`.
        encoder: the one that made the library; by default it is loaded by the name in the library's manifest.
        device: where that encoder runs, such as "cpu" or "cuda".
        captioners: whose captions are candidates for final prompts of pictures, or their subjects
            (`Settings.captioned`); none by default, for they take time.

    Raises:
        LibraryError: the encoder is not the one that made the library.
        EncoderError: the encoder cannot be loaded.
    """

    def __init__(
        self,
        library: Library | SearchBackend,
        encoder: Encoder | None = None,
        device: str = "cpu",
        captioners: Sequence[Captioner] = (),
    ) -> None:
        self.library = library
        self._backend = as_backend(library)
        self.captioners = tuple(captioners)
        if encoder is None:
            encoder = load_encoder(library.manifest.encoder.name, device=device)
        self.encoder = encoder
        _check_encoder(self.encoder, library)
        self._texts = TextCache(self.encoder)
        self._prepare = lru_cache(maxsize=4)(self._prepare_anew)

    def query(
        self,
        images: ImageLike | Iterable[ImageLike],
        k: int = 5,
        kinds: Sequence[str] | None = None,
        batch_size: int = 16,
        settings: Settings | None = None,
    ) -> list[QueryResult]:
        """Finds the prompts that may have made each of one or many pictures.

        Args:
            images: paths, PIL pictures, or (H, W, 3) uint8 RGB arrays; an (N, H, W, 3) array is N pictures.
            k: how many prompts, neighbours, and fragments of each kind to return, at least 1.
            kinds: the kinds of fragments to look for; those of the settings by default, none when empty.
            batch_size: how many pictures are decoded, encoded and searched at a time, at least 1.
            settings: how the final prompt is composed, which fragments may be found, and more.

        Returns:
            One result for each picture, in their order.

        Raises:
            PictureError: a picture cannot be read.
            QueryError: `k`, `batch_size`, a kind, a setting or an array is not as described.
        """
        check_positive("k", k)
        settings = _with_kinds(settings or Settings(), kinds)
        self._prepare(settings)  # raises before any picture is opened
        results: list[QueryResult] = []
        for batch in self.embed(images, batch_size):
            results += self.search(batch, k, settings)
        return results

    def embed(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 16) -> Iterator[list[Query]]:
        """Opens and embeds pictures, a batch at a time; see `query` for the arguments and errors."""
        check_positive("batch size", batch_size)
        preprocess, keep = self.encoder.preprocess, bool(self.captioners)
        loaded = (load_query_image(image, preprocess, i, keep=keep) for i, image in enumerate(iterate_images(images)))
        while batch := list(islice(loaded, batch_size)):
            embeddings = self.encoder.encode_images([image.pixels for image in batch])
            yield [
                Query(image.name, row, image.recorded, image.sha256, image.picture)
                for image, row in zip(batch, embeddings, strict=True)
            ]

    def search(self, queries: Sequence[Query], k: int = 5, settings: Settings | None = None) -> list[QueryResult]:
        """Answers embedded queries: pictures from `embed`, or what `unprompt.search.queries` makes of words and others.

        Raises:
            QueryError: `k` or a setting is not as described.
        """
        check_positive("k", k)
        settings = settings or Settings()
        self._prepare(settings)
        if not queries:
            return []
        evidence = find_evidence(self._backend, queries, max(DEPTH, DEPTH_FACTOR * k), settings.where)
        task = self._task(evidence, settings)
        fragments: list[dict[str, list[ScoredFragment]]] = [{} for _ in queries]
        if settings.mode != RETRIEVE or settings.ranking.kinds is not None:
            fragments = task.ranker.per_kind(task.queries, k)
        if settings.mode == RETRIEVE:
            finals = retrieved_finals(task, evidence, settings.policy, self._stored)
        else:
            finals = compose_finals(task, evidence, settings, self._fusion)
        negatives = MODES["negative"](task) if settings.negative else None
        return [
            QueryResult(
                image=found.query.name,
                final=finals[i],
                prompts=tuple(found.prompts[:k]),
                neighbours=tuple(found.neighbours[:k]),
                fragments=fragments[i],
                recorded=found.query.recorded,
                negative=negatives[i] if negatives is not None else None,
            )
            for i, found in enumerate(evidence)
        ]

    def ingredients(self, queries: Sequence[Query], settings: Settings | None = None) -> list[dict[str, str]]:
        """What each ingredient of the default answer would answer by itself, beside that answer, for comparing them.

        Pictures that the library holds are treated like any other.

        Args:
            queries: from `embed`, so that captioners see pictures.
            settings: the policy and budget of composed prompts and of the answer.

        Returns:
            For each query the prompts by name, see `unprompt.search.ingredients.first_answers`.
        """
        if not queries:
            return []
        settings = settings or Settings()
        evidence = find_evidence(self._backend, queries, DEPTH, settings.where)
        task = self._task(evidence, settings)
        found = self._fusion.find(task, evidence)
        return [first_answers(*each) for each in zip(found, self._fusion.rank(task, found), strict=True)]

    def analyze(self, queries: Sequence[Query], k: int = 5, settings: Settings | None = None) -> list[Analysis]:
        """The top-k terms of each kind for embedded queries, and nothing else: as fast as the encoder.

        Raises:
            QueryError: `k` or a setting is not as described.
        """
        check_positive("k", k)
        ranker, _ = self._prepare(settings or Settings())
        if not queries:
            return []
        found = ranker.per_kind(np.stack([query.embedding for query in queries]), k)
        return [Analysis(query.name, fragments) for query, fragments in zip(queries, found, strict=True)]

    def _prepare_anew(self, settings: Settings) -> tuple[FragmentRanker, TokenBudget]:
        ranker = FragmentRanker(self.library.vocabulary, settings.ranking, settings.policy)
        budget = load_budget(settings.target, self.encoder).around(settings.policy.finish)
        if not budget.fits([""])[0]:
            raise QueryError(
                f"prefix and suffix alone are longer than target {settings.target!r} holds ({budget.limit} tokens): "
                "shorten them, or choose a longer target"
            )
        return ranker, budget

    def _task(self, evidence: Sequence[Evidence], settings: Settings) -> ComposeInput:
        ranker, budget = self._prepare(settings)
        embeddings = np.stack([each.query.embedding for each in evidence])  # (Q, D)
        subjects = self._subjects(settings, evidence)
        merged = ranked_terms(ranker) if settings.mode == FAST else 0
        depth = FRAGMENTS_PER_KIND if settings.mode == DEFAULT else 1
        once = cast("FragmentRanker", RankedOnce(ranker, depth, merged))
        texts = self._texts
        return ComposeInput(
            embeddings, subjects, once, texts.encode_texts, budget, self._contexts, draft_texts=texts.draft_texts
        )

    def _contexts(self) -> NDArray[np.floating[Any]] | None:
        return kept_contexts(self.library.vocabulary, self.encoder)

    def _subjects(self, settings: Settings, evidence: Sequence[Evidence]) -> list[Part | None]:
        subjects = [self._subject(settings, each) for each in evidence]
        if not settings.captioned:
            return subjects
        if not self.captioners:
            raise QueryError("no captioner writes subjects: pass captioners to Engine, or leave captioned out")
        captioned = captioned_subjects(self.captioners, evidence, self._texts.encode_texts)
        return [own or other for own, other in zip(captioned, subjects, strict=True)]

    def _subject(self, settings: Settings, found: Evidence) -> Part | None:
        if settings.subject is not None:
            return Part(settings.subject, "user", "subject", 0.0)
        if settings.mode in (DEFAULT, RETRIEVE):
            return prompt_part(found.within(DEPTH).prompts)
        found = found.within(DEPTH)
        return subject_from_prompts(found.prompts, found.neighbours, self._artists, found.near)

    @cached_property
    def _fusion(self) -> Fusion:
        return Fusion(Reranker.load(self.encoder.name), self.captioners, self._artists, self._stored)

    @cached_property
    def _stored(self) -> StoredTexts | PushedTexts | None:
        local = local_library(self._backend)
        if local is not None:
            return local.library
        return self._backend if isinstance(self._backend, PushedTexts) else None

    @cached_property
    def _artists(self) -> Collection[str]:
        return name_keys(fragment.text for fragment in self.library.vocabulary.fragments(ARTIST))


def check_positive(name: str, value: int) -> None:
    """Raises QueryError when a count is below 1."""
    if value < 1:
        raise QueryError(f"{name} is {value}, use 1 or more")


def _with_kinds(settings: Settings, kinds: Sequence[str] | None) -> Settings:
    return settings if kinds is None else replace(settings, ranking=replace(settings.ranking, kinds=tuple(kinds)))


def _check_encoder(encoder: Encoder, library: Library | SearchBackend) -> None:
    made_by = library.manifest.encoder
    if (encoder.fingerprint, encoder.dim) != (made_by.fingerprint, made_by.dim):
        raise LibraryError(
            f"{library.path} was built with encoder {made_by.name!r} (weights {made_by.fingerprint[:12]}, "
            f"{made_by.dim} dimensions), this one is {encoder.name!r} (weights {encoder.fingerprint[:12]}, "
            f"{encoder.dim} dimensions); query with the encoder it was built with, or build the library again"
        )
