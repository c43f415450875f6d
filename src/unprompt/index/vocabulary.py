"""The vocabulary: prompt fragments by kind, the terms they are rendered as, and the terms' embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from unprompt.errors import LibraryError, QueryError
from unprompt.index.files import write_durably
from unprompt.index.shards import read_array, read_table
from unprompt.types import Embeddings, Fragment

if TYPE_CHECKING:
    from unprompt.index.calibration import Calibration

VOCABULARY = "vocabulary"
FRAGMENTS_FILE = f"{VOCABULARY}/fragments.parquet"
EMBEDDINGS_FILE = f"{VOCABULARY}/embeddings.npy"
CALIBRATION_FILE = f"{VOCABULARY}/calibration.safetensors"

PLAIN: tuple[str, ...] = ("{}",)
FORMS: Mapping[str, tuple[str, ...]] = {"artist": ("by {}", "inspired by {}")}
"""How fragments of a kind stand in a prompt, where that is not as they are listed."""

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("kind", pa.string()),
        ("source", pa.string()),
        ("count", pa.int64()),
        ("namespace", pa.string()),
        ("born", pa.int32()),
        ("died", pa.int32()),
        ("forms", pa.list_(pa.string())),
        ("deleted", pa.bool_()),
    ]
)
_FIELDS = SCHEMA.names[:-2]
# What the columns that the first format lacked are there: one namespace, texts stored as they are rendered.
_ABSENT: Mapping[str, Any] = {"namespace": "stock", "born": 0, "died": 0, "forms": list(PLAIN), "deleted": False}


@dataclass(frozen=True, slots=True)
class Stored:
    """A fragment as the vocabulary keeps it.

    Attributes:
        fragment: the fragment itself.
        forms: how it stands in prompts, each with one ``{}`` for its text; each is a term with an embedding.
        deleted: it is kept with its embeddings, but is in no answer.
    """

    fragment: Fragment
    forms: tuple[str, ...] = PLAIN
    deleted: bool = False

    @property
    def terms(self) -> list[str]:
        return [form.replace("{}", self.fragment.text) for form in self.forms]


class Vocabulary:
    """All fragments, grouped by kind, and for each of their T terms an embedding, row for row.

    A fragment is stored once and rendered as one or more terms: an artist as "by X" and "inspired by X". The terms of
    a kind lie together, so one product of queries with the resident matrix serves every kind by slices.
    """

    def __init__(
        self, table: pa.Table, embeddings: NDArray[np.floating[Any]], calibration: Calibration | None = None
    ) -> None:
        self._table = table
        self.embeddings = embeddings
        """(T, D), row for row with `terms`, as stored."""
        self.calibration = calibration
        sizes = table.column("forms").combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        self.fragment_rows: NDArray[np.intp] = np.repeat(np.arange(table.num_rows), sizes.astype(np.intp))
        """(T,) which stored fragment a term renders."""
        if len(embeddings) != len(self.fragment_rows):
            raise LibraryError(f"the vocabulary has {len(self.fragment_rows)} terms and {len(embeddings)} embeddings")
        if calibration is not None and len(calibration) != len(embeddings):
            raise LibraryError(f"the vocabulary has {len(embeddings)} terms, its calibration {len(calibration)}")
        kinds = table.column("kind").to_pylist()
        self.kind_ranges = _kind_ranges(kinds, self.fragment_rows)
        """Kind -> (start, stop): where its terms lie, soft-deleted ones included."""

    @classmethod
    def empty(cls, dim: int) -> Vocabulary:
        """A vocabulary of no fragments."""
        return cls(SCHEMA.empty_table(), np.zeros((0, dim), dtype=np.float32))

    @classmethod
    def of(cls, fragments: Sequence[Fragment], embeddings: NDArray[np.floating[Any]]) -> Vocabulary:
        """Makes a vocabulary of fragments rendered as is usual for their kinds, `FORMS`.

        Args:
            fragments: in any order; kinds are brought together in the order in which they first appear.
            embeddings: (T, D), of the terms of all fragments, in their order.
        """
        return cls.from_stored([Stored(each, FORMS.get(each.kind, PLAIN)) for each in fragments], embeddings)

    @classmethod
    def from_stored(
        cls,
        stored: Sequence[Stored],
        embeddings: NDArray[np.floating[Any]],
        calibration: Calibration | None = None,
    ) -> Vocabulary:
        """As `of`, with forms, deletions and a calibration for the terms in the order given."""
        first: dict[str, int] = {}
        for each in stored:
            first.setdefault(each.fragment.kind, len(first))
        order = sorted(range(len(stored)), key=lambda i: first[stored[i].fragment.kind])
        starts = np.concatenate([[0], np.cumsum([len(each.forms) for each in stored])]).astype(np.intp)
        rows = [row for i in order for row in range(starts[i], starts[i + 1])]
        columns: list[Any] = [[getattr(stored[i].fragment, name) for i in order] for name in _FIELDS]
        columns += [[list(stored[i].forms) for i in order], [stored[i].deleted for i in order]]
        moved = rows != list(range(len(rows)))
        if moved:
            embeddings = embeddings[rows]
            calibration = calibration.take(np.array(rows, dtype=np.intp)) if calibration is not None else None
        return cls(pa.table(columns, schema=SCHEMA), embeddings, calibration)

    @classmethod
    def read(cls, fragments: Path, embeddings: Path, dim: int, calibration: Path | None = None) -> Vocabulary:
        """Reads the files.

        Raises:
            LibraryError: one is missing, unreadable, or they disagree.
        """
        table = read_table(fragments)
        for name, value in _ABSENT.items():
            if name not in table.schema.names:
                field = SCHEMA.field(name)
                table = table.append_column(field, pa.array([value] * table.num_rows, type=field.type))
        if table.schema.names != SCHEMA.names:
            raise LibraryError(f"{fragments} has columns {table.schema.names}, expected {SCHEMA.names}")
        return cls(table, read_array(embeddings, dim), _read_calibration(calibration) if calibration else None)

    def write(self, fragments: Path, embeddings: Path, calibration: Path | None = None) -> None:
        """Writes the files durably, that of the calibration only when there is one."""
        write_durably(embeddings, lambda file: np.save(file, self.embeddings, allow_pickle=False))
        write_durably(fragments, lambda file: pq.write_table(self._table, file, compression="zstd"))
        if calibration is not None and self.calibration is not None:
            data = save(self.calibration.to_arrays())
            write_durably(calibration, lambda file: file.write(data))

    def __len__(self) -> int:
        """Fragments that are not deleted."""
        return int(self._live_fragments.sum())

    @cached_property
    def terms(self) -> list[str]:
        """What stands in a prompt, row for row with `embeddings`."""
        forms = self._table.column("forms").to_pylist()
        texts = self._table.column("text").to_pylist()
        return [form.replace("{}", text) for text, own in zip(texts, forms, strict=True) for form in own]

    @cached_property
    def lengths(self) -> NDArray[np.float32]:
        """(T,) how many characters each term has."""
        return np.array([len(term) for term in self.terms], dtype=np.float32)

    @cached_property
    def matrix(self) -> Embeddings:
        """(T, D) float32, C-contiguous, resident: `embeddings`, converted once."""
        return np.ascontiguousarray(self.embeddings, dtype=np.float32)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """(T,) False for the terms of deleted fragments."""
        live: NDArray[np.bool_] = self._live_fragments[self.fragment_rows]
        return live

    def fragment(self, row: int) -> Fragment:
        """The fragment that the term in `row` renders."""
        return self._fragment_of_term[row]

    @cached_property
    def _fragment_of_term(self) -> list[Fragment]:
        return [self._fragments[number] for number in self.fragment_rows.tolist()]

    def stored(self) -> list[Stored]:
        """Every fragment in stored order, deleted ones as well."""
        forms, deleted = self._table.column("forms").to_pylist(), self._table.column("deleted").to_pylist()
        return [Stored(f, tuple(own), gone) for f, own, gone in zip(self._fragments, forms, deleted, strict=True)]

    def fragments(self, kind: str | None = None, namespace: str | None = None, deleted: bool = False) -> list[Fragment]:
        """The fragments of a kind and namespace, or of all, in stored order: live ones, or the deleted ones instead."""
        return [
            fragment
            for fragment, live in zip(self._fragments, self._live_fragments.tolist(), strict=True)
            if live != deleted and kind in (None, fragment.kind) and namespace in (None, fragment.namespace)
        ]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that have a live fragment."""
        return tuple(self.counts())

    @cached_property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces that have a live fragment, in order of appearance."""
        return tuple(dict.fromkeys(fragment.namespace for fragment in self.fragments()))

    def counts(self) -> dict[str, int]:
        """How many live fragments each kind has."""
        kinds = np.array(self._table.column("kind").to_pylist(), dtype=object)[self._live_fragments]
        return dict(Counter(kinds.tolist()))

    def check_kinds(self, kinds: Sequence[str]) -> None:
        """Raises QueryError when a kind is not in the vocabulary."""
        known = self.kinds
        unknown = [kind for kind in kinds if kind not in known]
        if unknown:
            listed = ", ".join(known) or "none: the vocabulary is empty"
            raise QueryError(f"no fragments of kind {unknown[0]!r} in this library; known kinds: {listed}")

    @cached_property
    def _fragments(self) -> list[Fragment]:
        columns: list[list[Any]] = [self._table.column(name).to_pylist() for name in _FIELDS]
        return [Fragment(*row) for row in zip(*columns, strict=True)]

    @cached_property
    def _live_fragments(self) -> NDArray[np.bool_]:
        deleted: NDArray[np.bool_] = np.array(self._table.column("deleted").to_pylist(), dtype=bool)
        return ~deleted


def _read_calibration(path: Path) -> Calibration:
    from unprompt.index.calibration import Calibration

    try:
        return Calibration.from_arrays(load_file(path))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise LibraryError(
            f"{path} cannot be read ({error}); make it again with: unprompt vocabulary calibrate"
        ) from None


def _kind_ranges(kinds: Sequence[str], fragment_rows: NDArray[np.intp]) -> dict[str, tuple[int, int]]:
    ranges: dict[str, tuple[int, int]] = {}
    for kind, run in groupby(range(len(kinds)), key=kinds.__getitem__):
        rows = list(run)
        if kind in ranges:
            raise LibraryError(f"the vocabulary's {kind!r} fragments do not lie together; add them again")
        start, stop = np.searchsorted(fragment_rows, [rows[0], rows[-1] + 1])
        ranges[kind] = (int(start), int(stop))
    return ranges
