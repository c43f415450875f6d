"""``unprompt caption``: a trained captioner writes prompts for pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from unprompt.cli.searching import open_searched, parse_condition, searching_options, warn_that_none_meets

if TYPE_CHECKING:
    from PIL import Image

    from unprompt.backends.protocol import SearchBackend
    from unprompt.index.library import Library
    from unprompt.index.where import Where
    from unprompt.types import Candidate

    Captioned = tuple[str, Image.Image]


def _list_packaged(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from unprompt.captioners.registry import DEFAULT, packaged

    click.echo("\n".join(sorted(packaged(), key=lambda name: (name != DEFAULT, name))))
    context.exit()


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--captioner", "name", metavar="NAME",
              help="Its name, a checkpoint's folder, ofa:NAME or blip:NAME.  [default: first of --list]")  # fmt: skip
@searching_options
@click.option("--num-beams", type=click.IntRange(1), default=5, show_default=True, metavar="N",
              help="Captions kept while writing, and given at most.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), default=30, show_default=True, metavar="N",
              help="Longest caption, where the captioner was not trained to write shorter ones.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, metavar="N",
              help="Pictures at a time.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where it runs: cpu, cuda, cuda:1 ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line and picture.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_packaged,
              help="Print the captioners that the package brings, the default first, and exit.")  # fmt: skip
@click.pass_context
def caption(
    context: click.Context,
    /,
    images: tuple[str, ...],
    name: str | None,
    num_beams: int,
    max_tokens: int,
    batch_size: int,
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Write prompts for each IMAGE, a picture or a folder of pictures.

    A captioner that is told the prompts of neighbours finds them in --library, or where --backend says; with --where
    they are pictures that meet the condition.

    The score is the mean log-probability of a caption's tokens: at most 0, higher is better. A picture that cannot be
    read gives a warning; the others are captioned, and the exit status is 1.
    """
    from unprompt.captioners.captioner import TrainedCaptioner
    from unprompt.captioners.registry import DEFAULT, load_captioner
    from unprompt.cli.pictures import OpenedPictures
    from unprompt.encoders.registry import check_device

    check_device(device)
    finder = _finder(options, device)
    captioner = load_captioner(name or DEFAULT, device)
    if finder is None and isinstance(captioner, TrainedCaptioner) and captioner.card.neighbours:
        click.echo(
            f"warning: {captioner.name} learnt with neighbours and does worse alone: give --library or --backend",
            err=True,
        )
    opened = OpenedPictures(images, _decode)
    for number, batch in enumerate(_batches(opened, batch_size)):
        pictures = [picture for _, picture in batch]
        told = None if finder is None else finder(pictures)
        if number == 0 and told is not None and options["where"] and not any(told):
            warn_that_none_meets(options["where"])
        found = captioner.caption(pictures, num_beams=num_beams, max_tokens=max_tokens, neighbours=told)
        for (image, _), candidates in zip(batch, found, strict=True):
            click.echo(json.dumps(to_dict(image, candidates)) if as_json else describe(image, candidates))
    if opened.failed:
        context.exit(1)


def to_dict(image: str, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """One picture's captions as JSON."""
    captions = [
        {"prompt": each.prompt, "score": round(each.score, 4), "source": each.parts[0].source if each.parts else ""}
        for each in candidates
    ]
    return {"image": image, "captions": captions}


def describe(image: str, candidates: Sequence[Candidate]) -> str:
    """One picture's captions for people."""
    from unprompt.cli.query_output import printable

    return "\n".join([printable(image), *(f"  {each.score:8.3f}  {printable(each.prompt)}" for each in candidates)])


def _batches(opened: Iterable[Captioned], size: int) -> Iterator[list[Captioned]]:
    remaining = iter(opened)
    while batch := list(islice(remaining, size)):
        yield batch


def _decode(name: str, data: bytes) -> tuple[str, Image.Image]:
    from unprompt.pictures.opening import open_picture
    from unprompt.types import Picture

    return name, open_picture(Picture(name), data)


def _finder(options: Mapping[str, Any], device: str) -> NeighbourFinder | None:
    """Finds neighbours where the options say; None where they say nothing of it."""
    where = parse_condition(options["where"])
    if options["root"] is None and options["backend"] is None:
        if where is not None or options["search_device"] != "cpu":
            raise click.UsageError("--where and --search-device are of neighbours; give a --library to find them in")
        return None
    return NeighbourFinder(open_searched(options["root"], options["backend"], options["search_device"]), device, where)


class NeighbourFinder:
    """The prompts of the pictures of a library that are nearest to given ones."""

    LOOKED_AT = 64
    """Nearest pictures whose distinct prompts are told: a captioner takes the first few."""

    def __init__(self, library: Library | SearchBackend, device: str, where: Where | None = None) -> None:
        """Loads the library's encoder.

        Raises:
            LibraryError: the library has no pictures.
            EncoderError: its encoder cannot be loaded, or is not the one it was built with.
        """
        from unprompt.errors import LibraryError
        from unprompt.search.engine import Engine

        if len(library) == 0:
            raise LibraryError(f"{library.path} has no pictures, so there are no neighbours: build it from pictures")
        self._library = library
        self._where = where
        self._encoder = Engine(library, device=device).encoder

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[str]]:
        """For each picture the distinct prompts of its neighbours, nearest first."""
        from unprompt.search.retrieve import nearest_by_prompt, retrieve_neighbours

        queries = self._encoder.encode_images(list(pictures))
        found = retrieve_neighbours(self._library, queries, self.LOOKED_AT, self._where)
        return [list(nearest_by_prompt(neighbours)) for neighbours in found]
