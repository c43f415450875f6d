"""``unprompt vocabulary mine``: what a corpus's prompts say that the vocabulary lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unprompt.cli.csv_text import csv_text

if TYPE_CHECKING:
    from unprompt.builders.mine import Proposal

_TABLE_LIMIT = 50


@click.command()
@click.argument("library", required=False, type=click.Path(path_type=Path))
@click.option("--from", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Mine this .txt, .jsonl, .csv or .parquet file, not LIBRARY; repeatable.")  # fmt: skip
@click.option("--min-count", default=5, show_default=True, type=click.IntRange(min=1),
              help="How many prompts must hold a fragment.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help=f"The N commonest at most.  [default: {_TABLE_LIMIT}; all with --json or --out]")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="KIND",
              help="Only fragments guessed to be of this kind; repeatable.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: kind, text, count, example.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.csv",
              help="Write csv (text,kind,source,count) to look through and give to `vocabulary add`.")  # fmt: skip
def mine(
    library: Path | None,
    files: tuple[Path, ...],
    min_count: int,
    limit: int | None,
    kinds: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> None:
    """Propose fragments that LIBRARY's prompts use and its vocabulary lacks.

    Prompts are split, their fragments counted, and the kind of each is guessed. Nothing is added: write a csv with
    --out, edit it, and give it to `unprompt vocabulary add`. With --from, LIBRARY only says what is known already.
    """
    from unprompt.builders.mine import library_prompts, mine
    from unprompt.cli.progress import progress_bar
    from unprompt.index.library import Library

    if library is None and not files:
        raise click.UsageError("name a LIBRARY to mine, or files of prompts with --from FILE")
    opened = Library.open(library) if library is not None else None
    known = opened.vocabulary.fragments() if opened is not None else []
    _check_kinds(kinds, {fragment.kind for fragment in known})
    if limit is None and not (as_json or out):
        limit = _TABLE_LIMIT
    prompts = _file_prompts(files) if files or opened is None else library_prompts(opened)
    with progress_bar("mining", " prompts") as progress:
        found = mine(prompts, known, min_count=min_count, kinds=kinds, limit=limit, progress=progress)
    if out is not None:
        _write_csv(out, found, f"mined:{library.name if library is not None and not files else files[0].name}")
    if as_json:
        for proposal in found:
            click.echo(json.dumps({name: getattr(proposal, name) for name in ("kind", "text", "count", "example")},
                                  ensure_ascii=False))  # fmt: skip
    elif out is not None:
        click.echo(f"{len(found):,} proposals written to {out}; edit it, then run: unprompt vocabulary add {out}")
    else:
        _print_table(found)


def _check_kinds(kinds: Sequence[str], own: set[str]) -> None:
    from unprompt.builders.kinds import KINDS
    from unprompt.errors import QueryError

    for kind in kinds:
        if kind not in KINDS and kind not in own:
            raise QueryError(f"no fragment is ever guessed to be of kind {kind!r}; kinds are {', '.join(KINDS)}")


def _file_prompts(files: Sequence[Path]) -> Iterator[tuple[str, int]]:
    from unprompt.builders.sources.options import SourceOptions
    from unprompt.builders.sources.prompts import PromptsSource
    from unprompt.errors import SourceError
    from unprompt.types import Entry

    for path in files:
        if not path.exists():
            raise SourceError(f"{path}: no such file; --from takes a .txt, .jsonl, .csv, .tsv or .parquet file")
        for item in PromptsSource(str(path), SourceOptions()):
            if isinstance(item, Entry):
                yield item.prompt, item.count


def _write_csv(path: Path, found: Sequence[Proposal], source: str) -> None:
    from unprompt.index.files import write_durably

    rows = [[proposal.text, proposal.kind, source, proposal.count] for proposal in found]
    text = csv_text([["text", "kind", "source", "count"], *rows])
    write_durably(path, lambda file: file.write(text.encode()))


def _print_table(found: Sequence[Proposal]) -> None:
    if not found:
        click.echo("nothing to propose; a lower --min-count finds rarer fragments")
        return
    width = min(40, max(len(proposal.text) for proposal in found))
    room = max(20, shutil.get_terminal_size((120, 24)).columns - width - 22)
    click.echo(f"{'kind':<9} {'text':<{width}} {'count':>8}  example")
    for proposal in found:
        text, example = _cut(proposal.text, width), _cut(proposal.example, room)
        click.echo(f"{proposal.kind:<9} {text:<{width}} {proposal.count:>8,}  {example}")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
