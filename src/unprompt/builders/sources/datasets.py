"""Format "datasets": data sets of Hugging Face: parquet with pictures in a column, a saved folder, or a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unprompt.builders.entries import InlineEntry
from unprompt.builders.sources.common import BAD_ROW, NO_PROMPT, clean_metadata, clean_prompt, is_hidden
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import IMAGE_COLUMNS, PROMPT_COLUMNS, find_column
from unprompt.errors import SourceError
from unprompt.pictures.opening import MISSING
from unprompt.pictures.rows import PREFIX, feature_columns, is_saved, member_of, picture_columns, undecoded
from unprompt.types import Entry, Picture, Skipped, Source

_BATCH = 64
"""Rows read at a time: they hold whole pictures."""


def open_datasets(spec: str, options: SourceOptions) -> Source:
    """Opens ``datasets:NAME[:SPLIT]``, a folder written by ``save_to_disk``, or parquet with a column of pictures.

    Raises:
        SourceError: the extra is missing, the hub cannot be reached, or there is no column of pictures or prompts.
    """
    if spec.startswith(PREFIX):
        name, _, split = spec.removeprefix(PREFIX).partition(":")
        return DatasetSource(spec, _load(name, split), options)
    path = Path(spec)
    if is_saved(path):
        return DatasetSource(spec, _load_saved(path), options)
    tables = picture_tables(path)
    if not tables:
        raise SourceError(
            f"{spec}: no parquet with a column of pictures, and no folder that save_to_disk wrote; "
            f"a data set of the hub is datasets:NAME or datasets:NAME:SPLIT"
        )
    return PictureTableSource(tables, options)


class RowSource:
    """Rows that hold a picture's bytes, or its path, and its prompt, or a list of them."""

    format = "datasets"

    def __init__(self, where: str, pictures: Sequence[str], columns: Sequence[str], options: SourceOptions) -> None:
        """Chooses the columns: `pictures` are those that hold pictures, among all `columns`."""
        image = find_column(pictures, options.image_column, IMAGE_COLUMNS)
        if image is None and options.image_column is None:
            image = next(iter(pictures), None)
        prompt = find_column(columns, options.prompt_column, PROMPT_COLUMNS)
        have = ", ".join(columns[:12])
        if image is None:
            raise SourceError(f"{where}: no column of pictures; it has {have}; name one with --image-column")
        if prompt is None:
            raise SourceError(f"{where}: no prompt column; it has {have}; name one with --prompt-column")
        self.image, self.prompt = image, prompt
        self._pictures = pictures

    def entries(self, values: Mapping[str, Any], where: str, row: int) -> Iterator[Entry | Skipped]:
        """The entries of a row, one for each prompt it has; `row` counts from 0."""
        value = values[self.image]
        cell = {"bytes": value} if isinstance(value, bytes) else value
        picture, data = Picture(where, member_of(self.image, self._pictures, row)), None
        if isinstance(cell, dict):
            data, path = cell.get("bytes"), cell.get("path")
            if not data and path:
                picture = Picture(str(Path(where).parent / str(path)))
                if not Path(picture.path).is_file():
                    yield Skipped(picture.uri, MISSING, f"named in row {row} of {where}")
                    return
        if not data and picture.member is not None:
            yield Skipped(picture.uri, BAD_ROW, f"no picture in column {self.image!r}")
            return
        prompts = values[self.prompt] if isinstance(values[self.prompt], list) else [values[self.prompt]]
        rest = {key: value for key, value in values.items() if key not in (self.image, self.prompt)}
        metadata = clean_metadata({key: value for key, value in rest.items() if not _is_picture(value)})
        cleaned = [clean_prompt(prompt) for prompt in prompts if isinstance(prompt, str)]
        if not any(cleaned):
            yield Skipped(picture.uri, NO_PROMPT, f"column {self.prompt!r} has no text")
        for prompt in filter(None, cleaned):
            yield InlineEntry(prompt, picture, metadata, data=data) if data else Entry(prompt, picture, metadata)


class PictureTableSource(RowSource):
    """Parquet files with a column of pictures, in name order."""

    def __init__(self, tables: Sequence[Path], options: SourceOptions) -> None:
        import pyarrow.parquet as pq

        schema = pq.read_schema(tables[0])
        super().__init__(str(tables[0]), _picture_columns(tables[0]) or [], schema.names, options)
        self._tables = tables

    def __len__(self) -> int:
        import pyarrow.parquet as pq

        return sum(int(pq.read_metadata(path).num_rows) for path in self._tables)

    def __iter__(self) -> Iterator[Entry | Skipped]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._tables:
            row = 0
            try:
                for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(batch_size=_BATCH):
                    lacking = {self.image, self.prompt}.difference(batch.schema.names)
                    if lacking:
                        raise SourceError(f"{path}: no column {min(lacking)!r}, which {self._tables[0].name} has")
                    for values in batch.to_pylist():
                        yield from self.entries(values, str(path), row)
                        row += 1
            except (pa.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())
                raise SourceError(f"{path}: not a readable parquet file ({reason})") from error


class DatasetSource(RowSource):
    """A data set that the ``datasets`` library has opened: its splits in their order, or one."""

    def __init__(self, spec: str, splits: Mapping[str, Any], options: SourceOptions) -> None:
        first = next(iter(splits.values()))
        super().__init__(spec, feature_columns(first.features), list(first.features), options)
        several = len(splits) > 1
        self._splits = {f"{spec}:{name}" if several else spec: undecoded(split) for name, split in splits.items()}

    def __len__(self) -> int:
        return sum(map(len, self._splits.values()))

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for where, split in self._splits.items():
            for row, values in enumerate(split):
                yield from self.entries(values, where, row)


def picture_tables(path: Path) -> list[Path]:
    """The parquet files with a column of pictures: the file itself, or those in a folder or its ``data`` subfolder.

    Raises:
        SourceError: one of several cannot be read, which must not be left out in silence.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" and _picture_columns(path) else []
    for folder in (path, path / "data"):
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        columns = {file: _picture_columns(file) for file in files if not is_hidden(file.name)}
        found = [file for file, names in columns.items() if names]
        if found and (broken := [file for file, names in columns.items() if names is None]):
            raise SourceError(f"{broken[0]}: not a readable parquet file; restore it, or move it away")
        if found:
            return found
    return []


def _picture_columns(path: Path) -> list[str] | None:
    """The columns that may hold pictures; None for a file that cannot be read."""
    try:
        return picture_columns(path)
    except OSError:
        return None


def _is_picture(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes))


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError:
        raise SourceError("data sets of the hub need the datasets extra: pip install 'unprompt[datasets]'") from None


def _load(name: str, split: str) -> dict[str, Any]:
    datasets = _library()
    if not name:
        raise SourceError("datasets: needs a name, such as datasets:lambdalabs/naruto-blip-captions:train")
    try:
        found = datasets.load_dataset(name, split=split or None)
    except Exception as error:  # from a missing network to a broken card: the library raises nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = (
            "download it where there is a network and give its folder" if isinstance(error, ConnectionError) else ""
        )
        raise SourceError(f"datasets:{name} cannot be loaded ({reason}){'; ' * bool(advice)}{advice}") from error
    return {split: found} if split else dict(found)


def _load_saved(path: Path) -> dict[str, Any]:
    datasets = _library()
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # of a damaged folder the library raises nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{path}: not a readable data set ({reason}); save it again with save_to_disk") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"": found}
