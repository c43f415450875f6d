"""DiffusionDB's metadata table, read part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unprompt.errors import SourceError

SAMPLERS = {
    1: "ddim",
    2: "plms",
    3: "k_euler",
    4: "k_euler_ancestral",
    5: "k_heun",
    6: "k_dpm_2",
    7: "k_dpm_2_ancestral",
    8: "k_lms",
    9: "others",
}
"""The sampler numbers of the table (data set card, "Data Fields")."""

_COLUMNS = (
    "image_name",
    "part_id",
    "seed",
    "step",
    "cfg",
    "sampler",
    "width",
    "height",
    "timestamp",
    "image_nsfw",
    "prompt_nsfw",
)
_NAMES = {"step": "steps"}


class MetadataTable:
    """Looks up a part's rows in ``metadata.parquet`` without making two million Python objects.

    Row groups stay Arrow tables, of the needed columns alone. Parts must be asked for in ascending order: a row group
    is read when a part may lie in it by its statistics, and dropped once all its parts are behind.

    Raises:
        SourceError: the file is not such a table.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: not a readable parquet file ({error})") from error
        names = self._file.schema_arrow.names
        if not {"image_name", "part_id"} <= set(names):
            raise SourceError(f"{path}: not DiffusionDB's table, which has the columns image_name and part_id")
        self._columns = [name for name in _COLUMNS if name in names]
        self._ranges = _part_ranges(self._file)
        self._groups: dict[int, Any] = {}

    def part(self, number: int) -> dict[str, dict[str, Any]]:
        """The rows of one part, by picture name, with their columns named as `METADATA_KEYS`."""
        import pyarrow.compute as pc

        rows: dict[str, dict[str, Any]] = {}
        for group, (low, high) in enumerate(self._ranges):
            if high < number:
                self._groups.pop(group, None)
            elif low <= number:
                if group not in self._groups:
                    self._groups[group] = self._file.read_row_group(group, columns=self._columns)
                table = self._groups[group]
                for row in table.filter(pc.equal(table["part_id"], number)).to_pylist():
                    rows[row["image_name"]] = _named(row)
        return rows


def _named(row: dict[str, Any]) -> dict[str, Any]:
    values = {_NAMES.get(key, key): value for key, value in row.items() if key not in ("image_name", "part_id")}
    if isinstance(values.get("sampler"), int):
        values["sampler"] = SAMPLERS.get(values["sampler"], "others")
    return {key: value for key, value in values.items() if value is not None}


def _part_ranges(file: Any) -> list[tuple[float, float]]:
    """The lowest and highest part number of each row group, unbounded where the file has no statistics."""
    column = file.schema_arrow.names.index("part_id")
    ranges: list[tuple[float, float]] = []
    for group in range(file.metadata.num_row_groups):
        statistics = file.metadata.row_group(group).column(column).statistics
        known = statistics is not None and statistics.has_min_max
        ranges.append((statistics.min, statistics.max) if known else (float("-inf"), float("inf")))
    return ranges
