"""Inverted lists that are built in parts and stay in the file, for an index larger than the memory that is allowed.

Each part is an ordinary index of as many rows as the memory holds. Joining writes one ordinary FAISS file, list by
list, from the mapped parts, so neither building nor opening it needs the lists in memory. FAISS's own `merge_ondisk`
makes two files instead, of which one holds the other's name; a single file is replaced by one rename like any other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unprompt.errors import LibraryError
from unprompt.index import training
from unprompt.index.engine import load_faiss
from unprompt.index.files import TEMPORARY, write_durably
from unprompt.index.training import Blocks, Clusterer, inverted_lists
from unprompt.index.vector_index import VectorIndex, checked, default_parameters, new_index, train_index
from unprompt.types import Embeddings

_KIND, _FULL, _SPARSE = b"ilar", b"full", b"sprs"
"""FAISS's marks of lists that lie one behind the other, and of a table of the sizes of all, or of those with rows."""
_ID = 8


def build_on_disk(
    blocks: Blocks, rows: int, dim: int, factory: str, path: Path, part_bytes: int, clusterer: Clusterer | None = None
) -> VectorIndex:
    """Builds an index into the file `path`, with no more than about `part_bytes` of its lists in memory at once.

    Args:
        blocks: see `VectorIndex.build`.
        rows: how many vectors there are in all.
        dim: their dimension.
        factory: ``IVFn,`` and codes that FAISS keeps in plain lists: Flat, SQ or PQ, not FastScan.
        path: written whole and flushed, or not at all.
        part_bytes: at least one block's worth is held whatever it says.
        clusterer: see `unprompt.index.training`.

    Returns:
        The index, mapped from its file.

    Raises:
        LibraryError: such an index cannot be built so.
        OSError: the disk is full.
    """
    index, sample = new_index(blocks, rows, dim, factory)
    if not _plain(index):
        raise LibraryError(f"index {factory!r} cannot stay on disk: use IVFn,SQ8 or IVFn,SQfp16 (n lists)")
    train_index(index, sample, factory, clusterer)
    del sample
    return _fill(index, blocks(), [], factory, path, part_bytes, clusterer)


def extend_on_disk(old: Path, blocks: Iterator[Embeddings], factory: str, path: Path, part_bytes: int) -> VectorIndex:
    """Writes the index in file `old` with further rows behind its own to `path`; else as `build_on_disk`."""
    mapped = VectorIndex.read(old, factory, mapped=True)
    faiss = load_faiss()
    empty = faiss.read_index(str(old), faiss.IO_FLAG_MMAP)
    lists = faiss.ArrayInvertedLists(empty.nlist, empty.code_size)
    empty.replace_invlists(lists, True)
    lists.this.disown()
    empty.reset()
    return _fill(empty, blocks, [mapped.faiss_index], factory, path, part_bytes, None)


def join_lists(empty: Any, parts: Sequence[Any], path: Path) -> None:
    """Writes the rows of FAISS indexes with inverted lists as one index.

    Args:
        empty: an index of the same training without rows.
        parts: mapped or in memory, their row numbers disjoint.
        path: written under a temporary name first.

    Raises:
        OSError: the disk is full.
    """
    write_durably(path, lambda file: _write_joined(empty, parts, file))


def _fill(
    empty: Any,
    blocks: Iterator[Embeddings],
    parts: list[Any],
    factory: str,
    path: Path,
    part_bytes: int,
    clusterer: Clusterer | None,
) -> VectorIndex:
    faiss = load_faiss()
    names: list[Path] = []
    check = checked(empty.d)
    start = sum(part.ntotal for part in parts)

    def spill() -> None:
        names.append(path.with_name(f"{path.name}.part{len(names)}{TEMPORARY}"))
        VectorIndex(empty, factory).write(names[-1])
        parts.append(faiss.read_index(str(names[-1]), faiss.IO_FLAG_MMAP))
        empty.reset()

    try:
        for block in blocks:
            training.add(empty, check(block), clusterer, start)
            start += len(block)
            if empty.ntotal * (empty.code_size + _ID) >= part_bytes:
                spill()
        if empty.ntotal:
            spill()
        join_lists(empty, parts, path)
    finally:
        for name in names:
            name.unlink(missing_ok=True)
    return VectorIndex.read(path, factory, default_parameters(empty), mapped=True)


def _write_joined(empty: Any, parts: Sequence[Any], file: BinaryIO) -> None:
    faiss = load_faiss()
    lists = [inverted_lists(part).invlists for part in parts]
    count, code_size = empty.nlist, empty.code_size
    sizes = np.array([[part.list_size(i) for i in range(count)] for part in lists], dtype=np.uint64)  # (P, lists)
    file.write(_header(faiss, empty, int(sizes.sum())))
    file.write(_KIND + struct.pack("<QQ", count, code_size) + _FULL + struct.pack("<Q", count))
    file.write(sizes.sum(axis=0).astype("<u8").tobytes())
    for at in range(count):
        sized = [(part, int(size)) for part, size in zip(lists, sizes[:, at], strict=True) if size]
        for part, size in sized:
            codes = part.get_codes(at)
            file.write(faiss.rev_swig_ptr(codes, size * code_size).tobytes())
            part.release_codes(at, codes)
        for part, size in sized:
            ids = part.get_ids(at)
            file.write(faiss.rev_swig_ptr(ids, size).astype("<i8").tobytes())
            part.release_ids(at, ids)


def _header(faiss: Any, empty: Any, rows: int) -> bytes:
    """All of an index's file before its lists."""
    empty.ntotal = rows
    data: bytes = faiss.serialize_index(empty).tobytes()
    empty.ntotal = 0
    ending = _KIND + struct.pack("<QQ", empty.nlist, empty.code_size) + _SPARSE + struct.pack("<Q", 0)
    if not data.endswith(ending):
        raise LibraryError("this release of FAISS writes inverted lists in another way: build without --max-memory")
    return data.removesuffix(ending)


def _plain(index: Any) -> bool:
    faiss = load_faiss()
    return isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan)
