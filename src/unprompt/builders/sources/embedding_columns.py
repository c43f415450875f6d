"""Embeddings in columns of parquet tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unprompt.builders.entries import EmbeddedEntry, normalise
from unprompt.builders.sources.common import is_hidden
from unprompt.builders.sources.embedded_rows import BLOCK, PLACE_COLUMNS, RowReader, bad_embedding, distinct_prompts
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import find_column
from unprompt.errors import SourceError
from unprompt.types import Skipped

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_EMBEDDING_COLUMNS = ("image_embedding", "img_embedding", "image_emb", "img_emb", "image_embeddings")
TEXT_EMBEDDING_COLUMNS = (
    "text_embedding", "text_emb", "text_embeddings", "prompt_embedding", "prompt_emb", "caption_embedding",
)  # fmt: skip
PLAIN_COLUMNS = ("embedding", "embeddings", "emb", "vector", "features", "clip_embedding")
"""Of pictures where the table says where they are, else of its prompts: such can be held against the encoder."""


class EmbeddingColumnsSource:
    """Parquet files of the same columns, in the order given.

    Attributes:
        name: where they are.
        dim: of the embeddings, the length of the first that is there.
        fingerprint: of the encoder that made them, where the files say so.
    """

    format = "embeddings"

    def __init__(self, name: str, tables: Sequence[Path], options: SourceOptions) -> None:
        """Reads the schemas.

        Raises:
            SourceError: no column of prompts, or a named column that is not there or holds no embeddings.
        """
        from unprompt.index.shards import shard_origin

        self.name = name
        self._tables = [(path, *_columns(path, options)) for path in tables]
        self._readers = [_Reader(path, options) for path in tables]
        self._rows = sum(int(_open(path).metadata.num_rows) for path in tables)
        self.dim = next(filter(None, map(_dim, self._tables)), 0)
        if not self.dim:
            raise SourceError(f"{tables[0]}: its column of embeddings is empty")
        self.fingerprint = shard_origin(tables[0])[0]

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[EmbeddedEntry | Skipped]:
        return self._read() if all(image for _, image, _ in self._tables) else distinct_prompts(self._read)

    def _read(self) -> Iterator[EmbeddedEntry | Skipped]:
        for (path, image, text), reader in zip(self._tables, self._readers, strict=True):
            start = 0
            for batch in _batches(path, reader.columns):
                yield from self._entries(batch, image, text, reader, f"{path}:", start)
                start += batch.num_rows

    def _entries(
        self, batch: pa.RecordBatch, image: str | None, text: str | None, reader: _Reader, uri: str, start: int
    ) -> Iterator[EmbeddedEntry | Skipped]:
        images = normalise(_matrix(batch.column(image), self.dim)) if image else None
        texts = normalise(_matrix(batch.column(text), self.dim)) if text else None
        rest = batch.select([name for name in batch.schema.names if not _is_embedding(batch.schema.field(name).type)])
        for at, values in enumerate(rest.to_pylist()):
            place = f"{uri}{start + at + 1}"
            vector = images[0][at] if images else None
            entry = reader.read(values, place, vector, texts[0][at] if texts and texts[1][at] else None)
            if isinstance(entry, EmbeddedEntry) and images and not images[1][at]:
                yield bad_embedding(entry, place, f"column {image!r}, of length {self.dim} elsewhere,")
            else:
                yield entry


def embedding_tables(path: Path, options: SourceOptions) -> list[Path]:
    """The parquet files at or in `path` that have a column of embeddings; those of pictures before prompts alone."""
    if path.is_dir():
        files = sorted(
            file for file in path.iterdir() if file.suffix.lower() == ".parquet" and not is_hidden(file.name)
        )
    else:
        files = [path] if path.suffix.lower() == ".parquet" else []
    named = options.embedding_column or options.text_embedding_column
    found: list[tuple[bool, Path]] = []
    problem = None
    for file in files:
        try:
            image, text = _columns(file, options if named else SourceOptions())
        except SourceError as error:
            problem = problem or error
            continue
        if image or text:
            found.append((image is None, file))
    if problem and (found or named or path.is_file()):
        raise problem  # rather than leave a file of the set out
    return [file for _, file in sorted(found)]


def _columns(path: Path, options: SourceOptions) -> tuple[str | None, str | None]:
    """The columns of picture and prompt embeddings."""
    schema = _open(path).schema_arrow
    names = [name for name in schema.names if _is_embedding(schema.field(name).type)]
    for wanted in filter(None, (options.embedding_column, options.text_embedding_column)):
        if wanted not in names:
            what = (
                f"column {wanted!r} is {schema.field(wanted).type}"
                if wanted in schema.names
                else f"no column {wanted!r}"
            )
            have = ", ".join(schema.names[:12])
            raise SourceError(f"{path}: {what}; embeddings are lists of floats; it has {have}")
    image = find_column(names, options.embedding_column, IMAGE_EMBEDDING_COLUMNS)
    text = find_column(names, options.text_embedding_column, TEXT_EMBEDDING_COLUMNS)
    plain = find_column(names, None, PLAIN_COLUMNS) if image is None else None
    if plain not in (None, text):
        if find_column(schema.names, options.image_column, PLACE_COLUMNS) is not None:
            image = plain
        else:
            text = text or plain
    return image, text


class _Reader(RowReader):
    """Reads rows of one file; `columns` are those to load: pictures that lie in the table stay on the disk."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        import pyarrow as pa

        schema = _open(path).schema_arrow
        self.columns: list[str] = []
        for name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                self.columns += [f"{name}.path"] if kind.get_field_index("path") >= 0 else []
            elif not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                self.columns.append(name)
        super().__init__(path, [name for name in schema.names if not _is_embedding(schema.field(name).type)], options)


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from _open(path).iter_batches(batch_size=BLOCK, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from error


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{path}: not a readable parquet file ({reason})") from error


def _is_embedding(kind: pa.DataType) -> bool:
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_floating(kind.value_type))


def _dim(table: tuple[Path, str | None, str | None]) -> int:
    """The length of a file's first embedding, 0 when it has none."""
    import pyarrow.compute as pc

    path, image, text = table
    column = image or text
    for batch in _batches(path, [str(column)]):
        lengths = pc.list_value_length(batch.column(0)).drop_null()
        if len(lengths):
            return int(lengths[0].as_py())
    return 0


def _matrix(column: pa.Array, dim: int) -> NDArray[np.float32]:
    """(N, dim) float32; rows that are null or of another length are NaN."""
    import pyarrow.compute as pc

    fits = pc.equal(pc.list_value_length(column), dim).fill_null(False)
    rows = np.full((len(column), dim), np.nan, dtype=np.float32)
    values = column.filter(fits).flatten().to_numpy(zero_copy_only=False)
    rows[fits.to_numpy(zero_copy_only=False)] = np.asarray(values, dtype=np.float32).reshape(-1, dim)
    return rows
