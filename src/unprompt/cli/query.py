"""``unprompt query``: which prompts made these pictures?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.captioners import captioner_option, captioners_of, with_captions
from unprompt.cli.searching import open_searched, parse_condition, searching_options, warn_that_none_meets
from unprompt.cli.settings import composing_options, ranking_options, settings_of

if TYPE_CHECKING:
    from unprompt.cli.pictures import OpenedPictures
    from unprompt.search.engine import Engine
    from unprompt.search.inputs import QueryImage
    from unprompt.search.queries import Query
    from unprompt.search.results import QueryResult


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@searching_options
@click.option(
    "-k", default=5, show_default=True, metavar="K", help="How many prompts, neighbours, and fragments of each kind."
)
@click.option(
    "--format",
    "format_",
    default="text",
    show_default=True,
    metavar="NAME",
    help="text for people; txt, the final prompts alone; csv; json, one object a line; a1111, for its prompt box.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--text", "texts", multiple=True, metavar="WORDS", help="Query with words too. May be repeated.")
@click.option(
    "--embedding",
    "embeddings",
    multiple=True,
    metavar="FILE",
    help="Query with the library's encoder's embeddings in a .npy file too. May be repeated.",
)
@click.option("--combine", is_flag=True, help="Make one query of all that is given: one prompt for several pictures.")
@click.option("--less", multiple=True, metavar="IMAGE", help="Away from this picture; combines. May be repeated.")
@click.option("--less-text", multiple=True, metavar="WORDS", help="Away from these words; combines. May be repeated.")
@click.option("--less-weight", default=0.5, show_default=True, metavar="X", help="How much to avoid what is avoided.")
@click.option(
    "--sidecar",
    metavar="EXTENSION",
    help="Write each final prompt beside its picture, such as .txt for trainers; those that are there are kept.",
)
@click.option("--overwrite", is_flag=True, help="With --sidecar: write those anew that are there.")
@composing_options
@captioner_option
@ranking_options
@click.option(
    "--batch-size", default=16, show_default=True, metavar="N", help="Pictures encoded and searched at a time."
)
@click.option("--device", default="cpu", show_default=True, help="Where the networks run: cpu, cuda, cuda:1 ...")
@click.pass_context
def query(context: click.Context, /, images: tuple[str, ...], k: int, device: str, **options: Any) -> None:
    """Find the prompts that may have made each IMAGE.

    An IMAGE is a picture, a folder, which is searched for pictures with all its subfolders, or - for a picture on
    standard input. Words and embeddings can be searched with as well.

    A picture that cannot be read gives a warning on standard error; the others are answered, and the exit status is 1.
    """
    from unprompt.cli.pictures import query_images
    from unprompt.cli.sidecars import check_extension, sidecar_of
    from unprompt.search.engine import Engine, check_positive
    from unprompt.search.settings import check_settings

    if not (images or options["texts"] or options["embeddings"]):
        raise click.UsageError("give an IMAGE, a --text or an --embedding")
    check_positive("k", k)
    check_positive("batch size", options["batch_size"])
    format_ = _format_of(options)
    settings = replace(settings_of(options), where=parse_condition(options["where"]))
    settings = with_captions(settings, options["captioners"])
    extension = check_extension(options["sidecar"]) if options["sidecar"] else None
    if extension and (_combines(options) or options["texts"] or options["embeddings"] or "-" in images):
        raise click.UsageError("--sidecar writes beside pictures, one a picture; query with picture files alone")
    library = open_searched(options["root"], options["backend"], options["search_device"])
    check_settings(library.vocabulary, settings)  # before the encoder, which takes seconds to load
    alone = bool(images) and not _combines(options)
    engine = Engine(library, device=device, captioners=captioners_of(options["captioners"], settings, alone, device))

    def wanted(name: str) -> bool:
        return extension is None or options["overwrite"] or not sidecar_of(name, extension).exists()

    pictures = query_images(images, engine.encoder.preprocess, wanted, keep=bool(engine.captioners))
    less = query_images(options["less"], engine.encoder.preprocess)
    batches = _combined(engine, pictures, less, options) if _combines(options) else _batches(engine, pictures, options)
    found = (result for batch in batches for result in engine.search(batch, k, settings))
    answers = _warned_when_empty(found, options["where"]) if options["where"] else found
    if extension:
        _write_sidecars(answers, pictures, extension)
    else:
        _print(answers, format_)
    if pictures.failed or less.failed:
        context.exit(1)


def _format_of(options: Mapping[str, Any]) -> str:
    from unprompt.cli.formats import FORMATS
    from unprompt.errors import QueryError

    name: str = "json" if options["as_json"] else options["format_"]
    if name not in FORMATS:
        raise QueryError(f"unknown format {name!r}: use one of {', '.join(FORMATS)}")
    return name


def _combines(options: Mapping[str, Any]) -> bool:
    return bool(options["combine"] or options["less"] or options["less_text"])


def _batches(engine: Engine, pictures: OpenedPictures[QueryImage], options: Mapping[str, Any]) -> Iterator[list[Query]]:
    from unprompt.search.queries import read_embeddings, text_queries

    yield from engine.embed(pictures, options["batch_size"])
    others = text_queries(options["texts"], engine.encoder)
    others += [query for file in options["embeddings"] for query in read_embeddings(file, engine.encoder.dim)]
    if others:
        yield others


def _combined(
    engine: Engine, pictures: OpenedPictures[QueryImage], less: OpenedPictures[QueryImage], options: Mapping[str, Any]
) -> Iterator[list[Query]]:
    from unprompt.search.queries import combine, text_queries

    more = [query for batch in _batches(engine, pictures, options) for query in batch]
    avoided = [query for batch in engine.embed(less, options["batch_size"]) for query in batch]
    avoided += text_queries(options["less_text"], engine.encoder)
    if more or not pictures.failed:
        yield [combine(more, avoided, options["less_weight"])]


def _print(answers: Iterable[QueryResult], format_: str) -> None:
    from unprompt.cli.formats import CSV_HEADER, FORMATS

    if format_ == "csv":
        click.echo(CSV_HEADER)
    for result in answers:
        click.echo(FORMATS[format_](result))


def _warned_when_empty(answers: Iterable[QueryResult], where: str) -> Iterable[QueryResult]:
    """The same answers, after a warning where the condition left the first of them without evidence."""
    for number, result in enumerate(answers):
        if number == 0 and not (result.neighbours or result.prompts):
            warn_that_none_meets(where)
        yield result


def _write_sidecars(answers: Iterable[QueryResult], pictures: OpenedPictures[QueryImage], extension: str) -> None:
    from unprompt.cli.progress import progress_bar
    from unprompt.cli.sidecars import write_sidecar

    paths = pictures.paths
    todo = sum(map(pictures.wanted, paths))
    with progress_bar("captions", " pictures", todo) as progress:
        written = 0
        for result in answers:
            write_sidecar(result.image, result.final.prompt, extension)
            written += 1
            progress(1)
    click.echo(f"{written:,} captions written, {len(paths) - todo:,} were there", err=True)
