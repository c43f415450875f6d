"""``unprompt push``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "address",
    required=True,
    metavar="URL",
    help="milvus://HOST:PORT/NAME, milvus:FILE.db, or postgresql://USER@HOST/DATABASE?library=NAME.",
)
@click.option(
    "--index",
    default="hnsw",
    show_default=True,
    metavar="NAME",
    help="How embeddings are searched there: flat, exactly; hnsw or ivf, approximately.",
)
@click.option("--replace", is_flag=True, help="Delete the library that is there first.")
def push(library: Path, address: str, index: str, replace: bool) -> None:
    """Push the library in folder LIBRARY to Milvus, or to PostgreSQL with pgvector.

    Pictures, prompts and the vocabulary go there, so that `unprompt query --backend URL` needs no folder. A push that
    was interrupted goes on where it stopped, and one that is repeated writes nothing. After a change of the library the
    old one is served until the new one takes its place, all at once in the end.

    Passwords are best left to PGPASSWORD or a .pgpass file.
    """
    from unprompt.backends.opening import open_store
    from unprompt.backends.pushing import INDEXES, push, rows_to_push
    from unprompt.cli.progress import progress_bar
    from unprompt.errors import LibraryError
    from unprompt.index.library import Library

    if index not in INDEXES:
        raise LibraryError(f"unknown index {index!r}: use {', '.join(INDEXES)}")
    opened = Library.open(library)
    store = open_store(address)
    try:
        with progress_bar("pushing", " rows", rows_to_push(opened)) as progress:
            pushed = push(opened, store, index, replace, progress)
    finally:
        store.close()
    for table in ("pictures", "prompts"):
        click.echo(
            f"{pushed.total[table]:,} {table}: {pushed.written[table]:,} written, {pushed.kept[table]:,} were there"
        )
    click.echo(f"the vocabulary: {len(opened.vocabulary):,} fragments")
    click.echo(f"query it with: unprompt query PICTURE --backend '{store.shown}'")
