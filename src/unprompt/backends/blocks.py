"""A library's pictures and distinct prompts as blocks of rows to push."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unprompt.backends.protocol import Row
from unprompt.backends.tables import Block, picture_row, prompt_id
from unprompt.index.commit import current
from unprompt.index.library import PROMPTS_FILE
from unprompt.index.shards import PICTURES, SERIES, as_embeddings, read_array, read_table, table_records
from unprompt.types import Embeddings

if TYPE_CHECKING:
    from unprompt.index.library import Library
    from unprompt.index.manifest import ShardInfo

PROMPT_BLOCK = 4096
_ROWS_READ = 512


def picture_blocks(library: Library) -> Iterator[Block]:
    """A block for each shard of pictures: its files are written once, so their checksums name its content."""
    start = 0
    for shard in library.manifest.shards:
        if shard.series == PICTURES.name and shard.rows:
            yield _picture_block(library, shard, start)
            start += shard.rows


def _picture_block(library: Library, shard: ShardInfo, first: int) -> Block:
    table_file = PICTURES.table_file(shard.number)
    array_file = PICTURES.array_file(PICTURES.arrays[0], shard.number)
    files = library.manifest.files
    key = _hash(library.manifest.encoder.fingerprint, files[table_file].sha256, files[array_file].sha256, str(first))

    def read(start: int) -> Iterator[Row]:
        table = read_table(_path(library, table_file))
        array = read_array(_path(library, array_file), library.dim)
        for low in range(start, shard.rows, _ROWS_READ):
            records = table_records(table.slice(low, _ROWS_READ))
            embeddings = as_embeddings(array[low : low + _ROWS_READ])
            for i, (record, embedding) in enumerate(zip(records, embeddings, strict=True)):
                yield picture_row(record, first + low + i, key, embedding)

    return Block(key, shard.rows, read)


def prompt_blocks(library: Library) -> Iterator[Block]:
    """Blocks of the distinct prompts, in the order of the prompt index, named by a hash of prompts and embeddings."""
    if PROMPTS_FILE not in library.manifest.files:
        return
    table = read_table(_path(library, PROMPTS_FILE))
    stored = _PromptEmbeddings(library, table.column("prompt"))
    for first in range(0, table.num_rows, PROMPT_BLOCK):
        part = table.slice(first, PROMPT_BLOCK)
        prompts, counts = part.column("prompt").to_pylist(), part.column("count").to_pylist()
        embeddings = stored.read(first, part.num_rows)
        key = _hash(
            library.manifest.encoder.fingerprint,
            str(first),
            *(f"{count} {prompt_id(prompt)}" for prompt, count in zip(prompts, counts, strict=True)),
            hashlib.sha256(embeddings.tobytes()).hexdigest(),
        )
        rows = [
            {
                "id": prompt_id(text := prompt.replace("\0", "\ufffd")),
                "row": first + i,
                "block": key,
                "embedding": embeddings[i],
                "prompt": text,
                "count": counts[i],
            }
            for i, prompt in enumerate(prompts)
        ]
        yield Block(key, len(rows), lambda start, rows=rows: iter(rows[start:]))  # type: ignore[misc]


class _PromptEmbeddings:
    """Finds the embedding of each distinct prompt: that of the first row of any shard that has the prompt."""

    def __init__(self, library: Library, prompts: pa.ChunkedArray) -> None:
        self._library = library
        self._shards = [shard for shard in library.manifest.shards if shard.rows]
        captions: list[Any] = []
        for shard in self._shards:
            path = _path(library, SERIES[shard.series].table_file(shard.number))
            captions += read_table(path, ["caption"]).column("caption").chunks
        at = pc.index_in(pa.chunked_array(captions, type=pa.string()), value_set=prompts).to_numpy()
        self._rows: NDArray[np.int64] = np.unique(at, return_index=True)[1]
        self._ends = np.cumsum([shard.rows for shard in self._shards])

    def read(self, first: int, count: int) -> Embeddings:
        """(count, D) the embeddings of the prompts from row `first` on."""
        wanted = self._rows[first : first + count]
        found = np.empty((count, self._library.dim), dtype=np.float32)
        holders = np.searchsorted(self._ends, wanted, side="right")
        for at in np.unique(holders):
            shard, inside = self._shards[at], np.flatnonzero(holders == at)
            series = SERIES[shard.series]
            array = read_array(_path(self._library, series.array_file(series.text_array, shard.number)))
            found[inside] = array[wanted[inside] - (self._ends[at] - shard.rows)]
        return found


def _path(library: Library, name: str) -> Any:
    return current(library.path, name, library.manifest)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
