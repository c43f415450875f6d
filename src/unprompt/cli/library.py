"""``unprompt info`` and ``unprompt verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(library: Path, as_json: bool) -> None:
    """Describe the library in folder LIBRARY: its encoder, counts, indexes and size."""
    from unprompt.index.library import Library

    opened = Library.open(library)
    manifest = opened.manifest
    imported = sum(shard.rows for shard in manifest.shards if shard.imported)
    size = sum(file.bytes for file in manifest.files.values())
    facts = {
        "library": str(library),
        "encoder": manifest.encoder.name,
        "fingerprint": manifest.encoder.fingerprint,
        "dim": manifest.encoder.dim,
        "dtype": manifest.dtype,
        "counts": dict(manifest.counts),
        "vocabulary": opened.vocabulary.counts(),
        "shards": len(manifest.shards),
        "imported": imported,
        "indexes": {name: vars(index) for name, index in sorted(manifest.indexes.items())},
        "bytes": size,
    }
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    click.echo(f"{library}: {_bytes(size)} in {len(manifest.files)} files")
    click.echo(f"  encoder      {manifest.encoder.name} ({manifest.encoder.fingerprint[:12]}), {opened.dim} dimensions")
    click.echo(f"  embeddings   {manifest.dtype}, {len(manifest.shards)} shards")
    if imported:
        click.echo(f"  imported     {imported:,} rows were embedded elsewhere; their encoder was named by the user")
    for name, index in sorted(manifest.indexes.items()):
        parameters = f", {index.parameters}" if index.parameters else ""
        click.echo(f"  {name + ' index':<12} {index.rows:,} rows, {index.factory}{parameters}")
    fragments = ", ".join(f"{count:,} {kind}" for kind, count in opened.vocabulary.counts().items())
    click.echo(f"  vocabulary   {fragments or 'none'}")


@click.command()
@click.argument("library", type=click.Path(path_type=Path))
def verify(library: Path) -> None:
    """Check every checksum, row count and index of the library in folder LIBRARY.

    Prints one line a fault and exits with status 1 when there is any.
    """
    from unprompt.index.library import Library

    opened = Library.open(library)
    faults = opened.verify()
    for fault in faults:
        click.echo(fault)
    if faults:
        raise click.ClickException(f"{library} has {len(faults)} faults; restore those files or build it again")
    click.echo(f"{library} is sound: {len(opened.manifest.files)} files, {len(opened):,} pictures")


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
