"""Trains the reranker, and measures it against each of its ingredients: sentence cosine with the true prompt.

    python benchmarks/reranker.py --data DIR --library LIBRARY --head WEIGHTS --captioner FOLDER --split test
    python benchmarks/reranker.py --data DIR --library LIBRARY --head WEIGHTS --captioner FOLDER --train reranker.json

The library holds the training split (one quarter of each grid), prompts and fragments, and was built with the head that
``--head`` names. That head must have seen the training split alone when the reranker is trained: one that has seen the
development split makes neighbours look more reliable than they are.

Training sees each picture of the development split with captions and without, and a part of them again as if the
library lacked everything of their set: there the nearest picture says little, and the ranker learns how that shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import click
import numpy as np
from numpy.typing import NDArray

from unprompt.captioners.registry import load_captioner
from unprompt.encoders import load_encoder, starter
from unprompt.encoders.training.data import SETS, Example, load_examples
from unprompt.evaluation.bootstrap import compare
from unprompt.evaluation.metrics.sentence_cosine import EncodeTexts, load_encode, sentence_cosine
from unprompt.index.library import Library
from unprompt.search.budget import load_budget
from unprompt.search.candidates import Found, collect_candidates
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.ranker import FragmentRanker
from unprompt.search.reranker import OTHER, Reranker, read_signals
from unprompt.search.retrieve import nearest_by_prompt, rank_prompts, retrieve_neighbours, retrieve_prompts
from unprompt.search.settings import Settings
from unprompt.search.subject import prompt_part, subject_from_prompts
from unprompt.search.train_reranker import RIDGE, Judged, fit, save
from unprompt.types import Captioner, Embeddings, Encoder

EXISTING = click.Path(exists=True, path_type=Path)
DEPTH = 50
STRANGE_DEPTH = 8000
"""How deep is searched for what is not of a picture's own set."""
STRANGE = 110
"""Pictures of each set that are shown again without their set."""
BATCH = 32
BEAMS = 5


@dataclass(frozen=True)
class Batch:
    """Pictures of one kind, and all that was found for them."""

    name: str
    examples: Sequence[Example]
    queries: Embeddings
    found: Sequence[Found]

    def without_captions(self) -> Batch:
        return replace(self, name=f"{self.name}, no captions", found=[replace(f, captions=()) for f in self.found])


class Searcher:
    """The first stage and the default mode, on one library."""

    def __init__(self, library: Library, encoder: Encoder, captioner: Captioner | None) -> None:
        settings = Settings()
        self.library, self.encoder, self.captioner = library, encoder, captioner
        self.ranker = FragmentRanker(library.vocabulary, settings.ranking, settings.policy)
        self.budget = load_budget(settings.target, encoder)

    def find(self, name: str, examples: Sequence[Example], hidden: frozenset[str] = frozenset()) -> Batch:
        """Answers pictures from a library without the `hidden` prompts; captions only where nothing is hidden."""
        queries: list[Embeddings] = []
        found: list[Found] = []
        with click.progressbar(range(0, len(examples), BATCH), label=name) as starts:
            for start in starts:
                images = [example.open() for example in examples[start : start + BATCH]]
                queries.append(self.encoder.encode_images(images))
                part = list(self._search(queries[-1], hidden))
                if self.captioner is not None and not hidden:
                    told = [list(nearest_by_prompt(each.neighbours))[:DEPTH] for each in part]
                    captions = self.captioner.caption(images, num_beams=BEAMS, max_tokens=0, neighbours=told)
                    part = [replace(each, captions=written) for each, written in zip(part, captions, strict=True)]
                found += part
        return Batch(name, examples, np.concatenate(queries), found)

    def _search(self, queries: Embeddings, hidden: frozenset[str]) -> Iterator[Found]:
        depth = STRANGE_DEPTH if hidden else DEPTH
        neighbours = [
            [one for one in each if one.record.prompt not in hidden][:DEPTH]
            for each in retrieve_neighbours(self.library, queries, depth)
        ]
        near = [
            [hit for hit in each if hit.id not in hidden][:DEPTH]
            for each in retrieve_prompts(self.library, queries, depth)
        ]
        ranked = [rank_prompts(*each) for each in zip(neighbours, near, strict=True)]
        whole = [prompt_part(each) for each in ranked]
        subjects = [
            subject_from_prompts(prompts, pictures, near=texts)
            for prompts, pictures, texts in zip(ranked, neighbours, near, strict=True)
        ]
        composed = [
            MODES["default"](ComposeInput(queries, parts, self.ranker, self.encoder.encode_texts, self.budget))
            for parts in (whole, subjects)
        ]
        yield from map(Found, neighbours, near, zip(*composed, strict=True))


@click.command()
@click.option("--data", type=EXISTING, required=True, help="Folder that holds the four sets.")
@click.option("--library", "path", type=EXISTING, required=True, help="Library of the training split.")
@click.option("--head", type=EXISTING, help="Weights of the starter's head that the library was built with.")
@click.option("--captioner", help="Name or folder of a captioner.")
@click.option("--split", type=click.Choice(["dev", "test"]), default="test", show_default=True)
@click.option("--limit", default=10_000, show_default=True, help="Most pictures of a set.")
@click.option("--train", type=click.Path(path_type=Path), help="Fit to the development split, write weights here.")
def main(
    data: Path, path: Path, head: Path | None, captioner: str | None, split: str, limit: int, train: Path | None
) -> None:
    """Print the table of a split, or train."""
    encoder = cast(Encoder, starter.load(head_path=head)) if head else load_encoder("starter")
    library = Library.open(path)
    if library.manifest.encoder.fingerprint != encoder.fingerprint:
        raise click.ClickException(f"{path} was built with another head: give it with --head")
    searcher = Searcher(library, encoder, load_captioner(captioner) if captioner else None)
    examples = [each for each in load_examples(data) if each.cell in ("", "tl")]
    if train:
        learn(searcher, examples, limit, train)
        return
    batch = searcher.find(split, chosen(examples, split, limit))
    for each in (batch, batch.without_captions()) if captioner else (batch,):
        report(each)


def chosen(examples: Sequence[Example], split: str, limit: int, sets: Sequence[str] = SETS) -> list[Example]:
    """Up to `limit` pictures of each set, drawn by a hash of their prompts."""
    return [
        each
        for name in sets
        for each in sorted(
            (each for each in examples if (each.set, each.split) == (name, split)),
            key=lambda each: (hashlib.sha256(each.prompt.encode()).hexdigest(), str(each.path)),
        )[:limit]
    ]


def learn(searcher: Searcher, examples: Sequence[Example], limit: int, path: Path) -> None:
    """Fits both models and writes them."""
    seen = searcher.find("dev", chosen(examples, "dev", limit))
    batches = [seen, seen.without_captions()]
    for name in SETS:
        hidden = frozenset(each.prompt for each in examples if each.set == name)
        strange = searcher.find(f"without {name}", chosen(examples, "dev", min(limit, STRANGE), [name]), hidden)
        batches += [strange, with_strange_captions(strange, seen)]
    judged = [one for batch in batches for one in judge(batch, load_encode())]
    models = {"starter": fit(judged), OTHER: fit(judged, gated=False, scaled=True)}
    facts = {"data": "development split, and a part of it without the pictures' own sets", "ridge": RIDGE}
    save(models, {**facts, "pictures": len(judged)}, path)


def with_strange_captions(strange: Batch, seen: Batch) -> Batch:
    """Captions as of a captioner that has not seen the set: those of the most similar picture of the other sets."""
    own = {each.set for each in strange.examples}
    others = [row for row, each in enumerate(seen.examples) if each.set not in own]
    nearest = (strange.queries @ seen.queries[others].T).argmax(axis=1)
    captions = [seen.found[others[row]].captions for row in nearest]
    found = [replace(each, captions=written) for each, written in zip(strange.found, captions, strict=True)]
    return replace(strange, name=f"{strange.name}, strange captions", found=found)


def judge(batch: Batch, encode: EncodeTexts) -> Iterator[Judged]:
    """A batch as training data; sets weigh as the roots of their sizes."""
    sizes = {name: sum(each.set == name for each in batch.examples) for name in SETS}
    lists = collect_candidates(batch.found)
    for query, example, found, held in zip(batch.queries, batch.examples, batch.found, lists, strict=True):
        texts = encode([*(each.prompt for each in held), example.prompt]).astype(np.float64)
        signals = read_signals(query.astype(np.float64), held, texts[:-1], found.neighbours)
        yield Judged(signals, texts[:-1] @ texts[-1], 1 / np.sqrt(sizes[example.set]))


def report(batch: Batch) -> None:
    """Prints each ingredient, and how much the reranked prompts are above it."""
    encode, references = load_encode(), [each.prompt for each in batch.examples]
    near = [each.neighbours for each in batch.found]
    ranked = Reranker.load("starter").rank(batch.queries, collect_candidates(batch.found), near, encode)
    systems = {
        "nearest neighbour": [each.neighbours[0].record.prompt for each in batch.found],
        "prompt index": [each.near[0].id for each in batch.found],
        "rank fusion": [rank_prompts(each.neighbours, each.near)[0].prompt for each in batch.found],
        "composed": [each.composed[0].prompt for each in batch.found],
        "subject, fragments": [each.composed[1].prompt for each in batch.found],
    }
    if any(each.captions for each in batch.found):
        systems["captioner"] = [each.captions[0].prompt if each.captions else "" for each in batch.found]
    final = sentence_cosine([each[0].prompt for each in ranked], references, encode=encode)
    click.echo(f"{batch.name}: {len(references)} pictures, reranked {final.corpus:.3f} {by_set(batch, final.values)}")
    for name, prompts in systems.items():
        scores = sentence_cosine(prompts, references, encode=encode)
        above = compare(final, scores, groups=references)
        low, high = above.interval.low, above.interval.high
        click.echo(
            f"  {name:20s} {scores.corpus:.3f}  reranked {above.difference:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"p {above.p:.4f}  {by_set(batch, scores.values)}"
        )


def by_set(batch: Batch, values: NDArray[np.float64] | None) -> str:
    """The means over the pictures of each set."""
    assert values is not None
    of = np.array([each.set for each in batch.examples])
    return "  ".join(f"{name} {values[of == name].mean():.3f}" for name in SETS if (of == name).any())


if __name__ == "__main__":
    main()
