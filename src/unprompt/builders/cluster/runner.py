"""The parts of a build that a cluster does, in the places of those that one machine does.

The driver reads the sources, decides which rows are new, lays them out in shards, and writes these, in order. Workers
open pictures and encode shards, and keep nothing but the shard in hand. As a shard's pictures and prompts are encoded
in the batches that a build on one machine makes, the library is the same to the last bit wherever the encoder's results
do not depend on the machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from unprompt.builders.cluster.session import RETRIES, result_of
from unprompt.builders.cluster.tasks import Encoded, EncoderSpec, encode_shard, inspect_chunk
from unprompt.builders.decode import Decoded
from unprompt.builders.embed import ShardBuffer
from unprompt.builders.entries import Vector
from unprompt.builders.identity import Ids, digest
from unprompt.index.shards import PICTURES, Series, records_table
from unprompt.index.writer import LibraryWriter
from unprompt.types import Embeddings, Encoder, Entry, Pixels, Preprocess, Skipped

CHUNK = 32
"""Entries that a task inspects."""

AHEAD = 4
"""Tasks that are under way for each core, so that none waits for the driver."""


@dataclass(frozen=True, slots=True)
class Inspected(Decoded):
    """An entry whose picture a worker has opened: it stays where it is, or in the cluster's memory.

    Attributes:
        chunk: reference of the chunk of entries that it is one of.
        at: its place there.
    """

    chunk: Any = None
    at: int = 0


class ClusterRunner:
    """Opens pictures and encodes shards on a Ray cluster.

    Args:
        ray: the connected module, from `unprompt.builders.cluster.session`.
        spec: the encoder that workers load.
    """

    def __init__(self, ray: Any, spec: EncoderSpec) -> None:
        self._ray = ray
        self._spec = spec
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def decode(
        self, entries: Iterable[Entry | Skipped], preprocess: Preprocess, known: Ids, workers: int
    ) -> Generator[Decoded | Skipped, None, None]:
        """As `unprompt.builders.decode.decode`, whose workers are those of the cluster here."""
        ray = self._ray
        inspect = ray.remote(num_cpus=1, max_retries=RETRIES)(inspect_chunk)
        held = ray.put(known)
        rest = iter(entries)
        pending: deque[tuple[Any, Any]] = deque()
        while True:
            while len(pending) < AHEAD * self._cores and (chunk := list(islice(rest, CHUNK))):
                reference = ray.put(chunk)
                pending.append((reference, inspect.remote(reference, held)))
            if not pending:
                return
            reference, result = pending.popleft()
            for at, item in enumerate(result_of(ray, result)):
                yield item if isinstance(item, Skipped) else _inspected(item, reference, at)

    def buffer(self, writer: LibraryWriter, encoder: Encoder, shard_size: int, batch_size: int) -> ShardBuffer:
        """As `ShardBuffer`, whose shards are encoded on the cluster."""
        return ClusterShards(writer, encoder, shard_size, batch_size, ray=self._ray, spec=self._spec, ahead=self._cores)


@dataclass
class _Shard:
    """A shard that is being encoded.

    Attributes:
        rows: for each of its pictures, the row among those that the task encodes; None where there are none to encode.
        new: the prompts that the task encodes.
        result: reference of what the task gives.
    """

    series: Series
    arrays: dict[str, Embeddings]
    prompts: list[str]
    table: pa.Table
    given: list[Vector | None] | None
    rows: list[int] | None
    new: list[str]
    result: Any


class ClusterShards(ShardBuffer):
    """Collects the rows of shards, has the cluster encode several at once, and writes them in order."""

    def __init__(
        self,
        writer: LibraryWriter,
        encoder: Encoder,
        shard_size: int,
        batch_size: int,
        *,
        ray: Any,
        spec: EncoderSpec,
        ahead: int,
    ) -> None:
        super().__init__(writer, encoder, shard_size, batch_size)
        self._ray = ray
        self._spec = spec
        self._ahead = ahead
        self._pending: deque[_Shard] = deque()
        self._promised: set[bytes] = set()  # digests of prompts that a pending shard is to hold
        self._pictures: list[Inspected] = []
        gpus = 1 if spec.device.startswith("cuda") else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=[OSError, MemoryError])
        self._task = remote(encode_shard)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            for shard in self._pending:
                self._ray.cancel(shard.result, force=True)

    def _add_picture(self, item: Decoded, pixels: Pixels) -> None:
        assert isinstance(item, Inspected)
        if (item.sha256, item.entry.picture.cell if item.entry.picture else None) not in self._encoded:
            self._pictures.append(item)
        super()._add_picture(item, pixels)

    def _encode(self) -> None:
        self._pixels = []  # a task encodes the shard as a whole

    def _flush_pictures(self) -> None:
        if not self._records:
            return
        records, rows, pictures = self._records, self._rows, self._pictures
        self._records, self._rows, self._encoded, self._pixels, self._pictures = [], [], {}, [], []
        prompts = [record.prompt for record in records]
        self._submit(PICTURES, {}, prompts, records_table(records), None, pictures, rows)

    def _write(
        self,
        series: Series,
        arrays: dict[str, Embeddings],
        prompts: list[str],
        table: pa.Table,
        given: list[Vector | None] | None = None,
    ) -> None:
        self._submit(series, arrays, prompts, table, given, [], None)

    def _submit(
        self,
        series: Series,
        arrays: dict[str, Embeddings],
        prompts: list[str],
        table: pa.Table,
        given: list[Vector | None] | None,
        pictures: Sequence[Inspected],
        rows: list[int] | None,
    ) -> None:
        wanted = [text for text, held in zip(prompts, given or [None] * len(prompts), strict=True) if held is None]
        new = [text for text in self._memory.unknown(wanted) if digest(text) not in self._promised]
        self._promised.update(map(digest, new))
        chunks = {id(item.chunk): item.chunk for item in pictures}
        numbers = {key: number for number, key in enumerate(chunks)}
        places = [(numbers[id(item.chunk)], item.at) for item in pictures]
        result = self._task.remote(self._spec, self._batch_size, places, new, *chunks.values())
        self._pending.append(_Shard(series, arrays, prompts, table, given, rows, new, result))
        self._drain(self._ahead)

    def _drain(self, left: int) -> None:
        """Writes the oldest shards until no more than `left` are being encoded."""
        while len(self._pending) > left:
            shard = self._pending.popleft()
            encoded: Encoded = result_of(self._ray, shard.result)
            if shard.rows is not None:
                shard.arrays["img_emb"] = encoded.images[shard.rows]
            known = _Known(dict(zip(shard.new, encoded.texts, strict=True)), self._encoder.dim)
            shard.arrays[shard.series.text_array] = self._memory.encode(shard.prompts, known, shard.given)
            self._write_now(shard.series, shard.arrays, shard.prompts, shard.table, shard.given is not None)
            self._promised.difference_update(map(digest, shard.new))

    def _wait(self) -> None:
        self._drain(0)


@dataclass(frozen=True)
class _Known:
    """The text side of an encoder that has encoded all it will be asked for."""

    texts: dict[str, Vector]
    dim: int

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return np.stack([self.texts[text] for text in texts])


def _inspected(item: Decoded, chunk: Any, at: int) -> Inspected:
    return Inspected(item.entry, item.id, item.sha256, item.size, item.pixels, chunk, at)
