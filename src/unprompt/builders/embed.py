"""From decoded entries to shards: batches through the encoder, each distinct prompt once, writing in the background."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from unprompt.builders.decode import Decoded
from unprompt.builders.entries import EmbeddedEntry, Vector
from unprompt.builders.identity import digest
from unprompt.index.manifest import ShardInfo
from unprompt.index.shards import PICTURES, PROMPT_SCHEMA, PROMPTS, SERIES, Series, as_embeddings, records_table
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Encoder, Pixels, Record

log = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """What encoding prompts needs of an encoder."""

    @property
    def dim(self) -> int: ...

    def encode_texts(self, texts: Sequence[str]) -> Embeddings: ...


class PromptMemory:
    """Where in a library's shards each prompt's embedding already is."""

    def __init__(self, writer: LibraryWriter) -> None:
        self._writer = writer
        self._shards: list[ShardInfo] = []
        self._rows: dict[bytes, int] = {}  # shard position << 32 | row: one small int for each of millions of prompts
        for shard in writer.shards:
            captions = writer.table(SERIES[shard.series], shard.number, ["caption"])
            self.remember(shard, captions.column("caption").to_pylist())

    def remember(self, shard: ShardInfo, prompts: Sequence[str]) -> None:
        """Notes that `shard` holds the embeddings of `prompts`, row for row."""
        at = len(self._shards) << 32
        self._shards.append(shard)
        for row, prompt in enumerate(prompts):
            self._rows.setdefault(digest(prompt), at | row)

    def unknown(self, prompts: Sequence[str]) -> list[str]:
        """Those of some prompts that no shard holds, once each, in their order."""
        return list(dict.fromkeys(prompt for prompt in prompts if digest(prompt) not in self._rows))

    def encode(
        self, prompts: Sequence[str], encoder: TextEncoder, given: Sequence[Vector | None] | None = None
    ) -> Embeddings:
        """Returns (N, D) embeddings of `prompts`; only those that no shard holds are encoded, and those once.

        Args:
            prompts: N texts.
            encoder: encodes them.
            given: N embeddings that are taken as they are, or None in place of any.
        """
        given = given or [None] * len(prompts)
        wanted = [prompt for prompt, row in zip(prompts, given, strict=True) if row is None]
        new = self.unknown(wanted)
        encoded = dict(zip(new, encoder.encode_texts(new) if new else (), strict=True))
        result = np.empty((len(prompts), encoder.dim), dtype=np.float32)
        for row, (prompt, taken) in enumerate(zip(prompts, given, strict=True)):
            if taken is not None:
                result[row] = taken
            else:
                result[row] = encoded[prompt] if prompt in encoded else self._stored(prompt)
        return result

    def _stored(self, prompt: str) -> Embeddings:
        at, row = divmod(self._rows[digest(prompt)], 1 << 32)
        shard = self._shards[at]
        series = SERIES[shard.series]
        return as_embeddings(self._writer.array(series, series.text_array, shard.number)[row])


class ShardBuffer:
    """Collects the rows of the shards in hand, encoding pictures as batches fill, and writes each when it is full.

    Batches never reach over the end of a shard, so that a resumed build encodes the same batches as one that was never
    interrupted: the embeddings are then equal to the last bit. Within a shard, a picture that several rows have is
    encoded once. Imported rows have shards of their own.
    """

    def __init__(self, writer: LibraryWriter, encoder: Encoder, shard_size: int, batch_size: int) -> None:
        self._writer = writer
        self._encoder = encoder
        self._shard_size = shard_size
        self._batch_size = batch_size
        self._memory = PromptMemory(writer)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="unprompt-writer")
        self._writing: Future[None] | None = None
        self._records: list[Record] = []
        self._rows: list[int] = []  # for each record, the row of its picture among those encoded for this shard
        self._encoded: dict[tuple[str, str | None], int] = {}
        self._pixels: list[Pixels] = []
        self._embeddings: list[Embeddings] = []
        self._prompts: list[Decoded] = []
        self._imported: dict[str, list[Decoded]] = {PICTURES.name: [], PROMPTS.name: []}

    def __enter__(self) -> ShardBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush_pictures()
                self._flush_prompts()
                self._flush_imported(PICTURES)
                self._flush_imported(PROMPTS)
                self._wait()
        finally:
            self._background.shutdown(wait=True)

    def add(self, item: Decoded) -> None:
        """Takes one new row; encodes or writes when a batch or shard is full."""
        if isinstance(item.entry, EmbeddedEntry):
            series = PICTURES if item.is_picture else PROMPTS
            items = self._imported[series.name]
            items.append(item)
            if len(items) == self._shard_size:
                self._flush_imported(series)
        elif item.pixels is None:
            self._prompts.append(item)
            if len(self._prompts) == self._shard_size:
                self._flush_prompts()
        else:
            self._add_picture(item, item.pixels)

    def _add_picture(self, item: Decoded, pixels: Pixels) -> None:
        width, height = item.size
        self._records.append(_record(item, {"sha256": item.sha256, "width": width, "height": height}))
        key = (item.sha256, item.entry.picture.cell if item.entry.picture else None)
        if key not in self._encoded:
            self._encoded[key] = len(self._encoded)
            self._pixels.append(pixels)
        self._rows.append(self._encoded[key])
        if len(self._pixels) == self._batch_size:
            self._encode()
        if len(self._records) == self._shard_size:
            self._flush_pictures()

    def _encode(self) -> None:
        if self._pixels:
            self._embeddings.append(self._encoder.encode_images(self._pixels))
            self._pixels = []

    def _flush_pictures(self) -> None:
        if not self._records:
            return
        self._encode()
        records, images = self._records, np.concatenate(self._embeddings)[self._rows]
        self._records, self._rows, self._encoded, self._embeddings = [], [], {}, []
        prompts = [record.prompt for record in records]
        self._write(PICTURES, {"img_emb": images}, prompts, records_table(records))

    def _flush_prompts(self) -> None:
        if not self._prompts:
            return
        items, self._prompts = self._prompts, []
        self._write(PROMPTS, {}, [item.entry.prompt for item in items], _prompt_table(items))

    def _flush_imported(self, series: Series) -> None:
        items, self._imported[series.name] = self._imported[series.name], []
        entries = [item.entry for item in items if isinstance(item.entry, EmbeddedEntry)]
        if not entries:
            return
        prompts = [entry.prompt for entry in entries]
        given = [entry.text for entry in entries]
        if series is PROMPTS:
            self._write(PROMPTS, {}, prompts, _prompt_table(items), given)
            return
        images = np.stack([entry.image for entry in entries if entry.image is not None])
        self._write(PICTURES, {"img_emb": images}, prompts, records_table(map(_record, items)), given)

    def _write(
        self,
        series: Series,
        arrays: dict[str, Embeddings],
        prompts: list[str],
        table: pa.Table,
        given: list[Vector | None] | None = None,
    ) -> None:
        """Encodes the prompts and hands a shard to the writing thread; `given` makes it one of imported rows."""
        self._wait()
        arrays[series.text_array] = self._memory.encode(prompts, self._encoder, given)
        self._writing = self._background.submit(self._write_now, series, arrays, prompts, table, given is not None)

    def _write_now(
        self, series: Series, arrays: dict[str, Embeddings], prompts: list[str], table: pa.Table, imported: bool
    ) -> None:
        self._writer.append_shard(series, arrays, table, imported)
        shard = max((s for s in self._writer.shards if s.series == series.name), key=lambda s: s.number)
        self._memory.remember(shard, prompts)
        log.info("wrote %s shard %04d: %d rows", series.name, shard.number, shard.rows)

    def _wait(self) -> None:
        """Waits for the shard before, whose prompts the next one looks up, and raises what went wrong with it."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _record(item: Decoded, measured: Mapping[str, Any] = MappingProxyType({})) -> Record:
    picture = item.entry.picture
    return Record(item.id, item.entry.prompt, picture.uri if picture else None, {**item.entry.metadata, **measured})


def _prompt_table(items: Sequence[Decoded]) -> pa.Table:
    rows = [
        [item.id for item in items],
        [item.entry.prompt for item in items],
        [item.entry.count for item in items],
        [str(item.entry.metadata.get("source", "")) for item in items],
    ]
    return pa.table(rows, schema=PROMPT_SCHEMA)
