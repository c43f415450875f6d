"""From decoded entries to shards: batches through the encoder, each distinct prompt once, writing in the background."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import pyarrow as pa

from unprompt.builders.decode import Decoded
from unprompt.builders.identity import digest
from unprompt.index.manifest import ShardInfo
from unprompt.index.shards import PICTURES, PROMPT_SCHEMA, PROMPTS, SERIES, Series, as_embeddings, records_table
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Encoder, Pixels, Record

log = logging.getLogger(__name__)


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

    def encode(self, prompts: Sequence[str], encoder: Encoder) -> Embeddings:
        """Returns (N, D) embeddings of `prompts`; only those that no shard holds are encoded, and those once."""
        new = list(dict.fromkeys(prompt for prompt in prompts if digest(prompt) not in self._rows))
        encoded = dict(zip(new, encoder.encode_texts(new) if new else (), strict=True))
        result = np.empty((len(prompts), encoder.dim), dtype=np.float32)
        for row, prompt in enumerate(prompts):
            result[row] = encoded[prompt] if prompt in encoded else self._stored(prompt)
        return result

    def _stored(self, prompt: str) -> Embeddings:
        at, row = divmod(self._rows[digest(prompt)], 1 << 32)
        shard = self._shards[at]
        series = SERIES[shard.series]
        return as_embeddings(self._writer.array(series, series.text_array, shard.number)[row])


class ShardBuffer:
    """Collects the rows of the shard in hand, encoding pictures as batches fill, and writes it when it is full.

    Batches never reach over the end of a shard, so that a resumed build encodes the same batches as one that was never
    interrupted: the embeddings are then equal to the last bit.
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
        self._pixels: list[Pixels] = []
        self._embeddings: list[Embeddings] = []
        self._prompts: list[Decoded] = []

    def __enter__(self) -> ShardBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush_pictures()
                self._flush_prompts()
                self._wait()
        finally:
            self._background.shutdown(wait=True)

    def add(self, item: Decoded) -> None:
        """Takes one new row; encodes or writes when a batch or shard is full."""
        if item.pixels is None:
            self._prompts.append(item)
            if len(self._prompts) == self._shard_size:
                self._flush_prompts()
            return
        assert item.entry.picture is not None
        width, height = item.size
        metadata = {**item.entry.metadata, "sha256": item.sha256, "width": width, "height": height}
        self._records.append(Record(item.id, item.entry.prompt, item.entry.picture.uri, metadata))
        self._pixels.append(item.pixels)
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
        records, images = self._records, np.concatenate(self._embeddings)
        self._records, self._embeddings = [], []
        prompts = [record.prompt for record in records]
        self._write(PICTURES, {"img_emb": images}, prompts, records_table(records))

    def _flush_prompts(self) -> None:
        if not self._prompts:
            return
        items, self._prompts = self._prompts, []
        prompts = [item.entry.prompt for item in items]
        rows = [
            [item.id for item in items],
            prompts,
            [item.entry.count for item in items],
            [str(item.entry.metadata.get("source", "")) for item in items],
        ]
        self._write(PROMPTS, {}, prompts, pa.table(rows, schema=PROMPT_SCHEMA))

    def _write(self, series: Series, arrays: dict[str, Embeddings], prompts: list[str], table: pa.Table) -> None:
        self._wait()
        arrays[series.text_array] = self._memory.encode(prompts, self._encoder)
        self._writing = self._background.submit(self._write_now, series, arrays, prompts, table)

    def _write_now(self, series: Series, arrays: dict[str, Embeddings], prompts: list[str], table: pa.Table) -> None:
        self._writer.append_shard(series, arrays, table)
        shard = max((s for s in self._writer.shards if s.series == series.name), key=lambda s: s.number)
        self._memory.remember(shard, prompts)
        log.info("wrote %s shard %04d: %d rows", series.name, shard.number, shard.rows)

    def _wait(self) -> None:
        """Waits for the shard before, whose prompts the next one looks up, and raises what went wrong with it."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None
