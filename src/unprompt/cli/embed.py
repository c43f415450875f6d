"""``unprompt embed``: predicted sentence embeddings of the prompts of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.searching import open_library, search_device_option

if TYPE_CHECKING:
    from unprompt.cli.pictures import OpenedPictures
    from unprompt.evaluation.embedding.output import Journal
    from unprompt.search.inputs import QueryImage
    from unprompt.types import Embeddings, Encoder

    Predict = Callable[[Sequence[QueryImage]], Embeddings]


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--library", "root", type=click.Path(path_type=Path), metavar="DIR",
              help="Where neighbours are found.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option("--format", "format_", default="kaggle", show_default=True, metavar="NAME",
              help="kaggle, a submission.csv; npy, an array with the names in FILE.txt; jsonl.")  # fmt: skip
@click.option("--from", "source", default="mix", show_default=True, metavar="WHAT",
              help="mix of a learnt head and neighbours; head; neighbours; prompt, what query answers.")  # fmt: skip
@click.option("--head", type=click.Path(path_type=Path), metavar="FILE",
              help="A head that embed-train wrote.  [default: the packaged one, for the starter encoder]")  # fmt: skip
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE",
              help="Embed the prompts of this csv or jsonl, of image and prompt, not pictures.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, metavar="N",
              help="Pictures at a time.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where the encoder runs: cpu, cuda, cuda:1 ...")
@search_device_option
@click.pass_context
def embed(
    context: click.Context, /, images: tuple[str, ...], out: Path, format_: str, prompts: Path | None, **options: Any
) -> None:
    """Predict the sentence embedding (all-MiniLM-L6-v2, 384 numbers) of the prompt of each IMAGE.

    An IMAGE is a picture or a folder of pictures; a submission calls it by its file's name without ending. A run that
    was killed goes on where it was when the same command is given again. A picture that cannot be read gives a
    warning; the others are written, and the exit status is 1.
    """
    if bool(images) == (prompts is not None):
        raise click.UsageError("give either IMAGEs or --prompts")
    if prompts is not None:
        _embed_prompts(prompts, out, format_)
        return
    failed = _embed_pictures(images, out, format_, **options)
    if failed:
        context.exit(1)


def _embed_prompts(path: Path, out: Path, format_: str) -> None:
    from unprompt.evaluation.embedding.output import WRITERS, check_writable
    from unprompt.evaluation.embedding.prompts import read_prompts
    from unprompt.evaluation.metrics.sentence_cosine import embed_distinct

    prompts = read_prompts(path)
    check_writable(out, format_, list(prompts))
    WRITERS[format_](out, list(prompts), embed_distinct(list(prompts.values())))
    click.echo(f"{out}: {len(prompts):,} prompts", err=True)


def _embed_pictures(
    images: Sequence[str],
    out: Path,
    format_: str,
    *,
    source: str,
    root: Path | None,
    head: Path | None,
    batch_size: int,
    device: str,
    search_device: str,
) -> int:
    """Predicts and writes; returns how many pictures could not be read."""
    import numpy as np

    from unprompt.cli.pictures import query_images
    from unprompt.errors import EvaluationError
    from unprompt.evaluation.embedding.output import WRITERS, Journal, check_writable

    encoder, predict, facts = _predictor(source, root, head, device, search_device)
    journal: Journal | None = None
    # Captioners look at the pictures themselves.
    opened = query_images(
        images, encoder.preprocess, lambda name: journal is None or name not in journal.known, keep=source == "prompt"
    )
    names = list(dict.fromkeys(opened.paths))
    if "-" in names:
        raise click.UsageError("a picture on standard input has no name to be written by: name files")
    check_writable(out, format_, names)
    journal = Journal(out, facts)
    try:
        _predict_all(opened, names, predict, journal, batch_size)
    finally:
        journal.close()
    done = [name for name in names if name in journal.known]
    if done:
        WRITERS[format_](out, done, np.stack([journal.known[name] for name in done]))
    journal.delete()
    if not done:
        raise EvaluationError("none of the pictures can be read: name others")
    click.echo(f"{out}: {len(done):,} pictures by {source}", err=True)
    return opened.failed


def _predict_all(
    opened: OpenedPictures[QueryImage], names: Sequence[str], predict: Predict, journal: Journal, batch_size: int
) -> None:
    """Predicts what the journal lacks."""
    from unprompt.cli.progress import progress_bar

    with progress_bar("embeddings", " pictures", len(names)) as progress:
        progress(sum(name in journal.known for name in names))
        for batch in _batches(opened, batch_size):
            journal.add([image.name for image in batch], predict(batch))
            progress(len(batch))


def _batches(opened: OpenedPictures[QueryImage], size: int) -> Iterator[list[QueryImage]]:
    """A picture that is named twice is looked at once."""
    seen: set[str] = set()
    remaining = (image for image in opened if not (image.name in seen or seen.add(image.name)))  # type: ignore[func-returns-value]
    while batch := list(islice(remaining, size)):
        yield batch


def _predictor(
    source: str, root: Path | None, head: Path | None, device: str, search_device: str
) -> tuple[Encoder, Predict, dict[str, Any]]:
    """The encoder, what predicts a batch, and what decides the predictions."""
    from importlib.metadata import version

    from unprompt.cli.captioners import captioners_of
    from unprompt.encoders import load_encoder
    from unprompt.errors import EvaluationError
    from unprompt.index.gpu.device import device_kind
    from unprompt.search.engine import Engine
    from unprompt.search.settings import Settings

    known = ("mix", "head", "neighbours", "prompt")
    if source not in known:
        raise EvaluationError(f"unknown source {source!r}: --from is one of {', '.join(known)}")
    if root is None and source != "head":
        raise click.UsageError(f"--from {source} needs --library")
    if root is None and search_device != "cpu":
        raise click.UsageError("--search-device is for a --library; a head searches nothing")
    library = None if root is None else open_library(root, search_device)
    captioners = captioners_of((), Settings(), True, device) if source == "prompt" else []
    engine = None if library is None else Engine(library, device=device, captioners=captioners)
    encoder = load_encoder("starter", device=device) if engine is None else engine.encoder
    facts = {
        "version": version("unprompt"),
        "source": source,
        "encoder": encoder.fingerprint,
        "library": _content(library),
        "searched": device_kind(search_device),
    }
    if source == "prompt":
        assert engine is not None
        return encoder, _by_engine(engine), facts
    from unprompt.evaluation.embedding.predict import EmbeddingPredictor

    loaded, content = _load_head(head, encoder.name, source)
    predictor = EmbeddingPredictor(encoder, source, head=loaded, library=library)  # type: ignore[arg-type]
    return encoder, lambda batch: predictor([image.pixels for image in batch]), {**facts, "head": content}


def _load_head(path: Path | None, encoder: str, source: str) -> tuple[Any, str]:
    """The head and the sha256 of its file; for neighbours alone it says how they are averaged."""
    from unprompt.encoders.weights_check import sha256_of
    from unprompt.errors import EvaluationError
    from unprompt.evaluation.embedding.head import PACKAGED, load_embedding_head

    if path is None and encoder != "starter":
        if source == "neighbours":
            return None, ""
        raise EvaluationError(
            f"no head is packaged for encoder {encoder!r}: train one with embed-train, or use --from neighbours"
        )
    file = path or PACKAGED
    head = load_embedding_head(file)
    return head, sha256_of(file)


def _by_engine(engine: Any) -> Predict:
    """Embeds the final prompt of `unprompt query`."""
    from unprompt.evaluation.metrics.sentence_cosine import embed_distinct

    def predict(batch: Sequence[QueryImage]) -> Embeddings:
        queries = [query for part in engine.embed(batch, len(batch)) for query in part]
        return embed_distinct([result.final.prompt for result in engine.search(queries)])

    return predict


def _content(library: Any) -> str:
    """What a library holds, as one hash over those of its files."""
    import hashlib

    if library is None:
        return ""
    files = sorted((name, info.sha256) for name, info in library.manifest.files.items())
    return hashlib.sha256(repr(files).encode()).hexdigest()
