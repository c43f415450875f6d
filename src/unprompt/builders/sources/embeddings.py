"""Format "embeddings": what autofaiss indexes, plain .npy files or parquet columns, with a table of their prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unprompt.builders.sources.arrays import ArrayFiles
from unprompt.builders.sources.common import is_hidden
from unprompt.builders.sources.embedded_rows import PLACE_COLUMNS, AlignedSource, Part, RowFiles
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import find_column, is_table
from unprompt.errors import SourceError
from unprompt.types import Source

_IMAGE_NAME = re.compile(r"(?<![a-z])(image|img|picture|photo)s?(?![a-z])", re.IGNORECASE)
_TEXT_NAME = re.compile(r"(?<![a-z])(text|txt|caption|prompt)s?(?![a-z])", re.IGNORECASE)
_PROMPT_ARRAY, _PROMPT_TABLE = "prompt_emb", "prompts"
"""How an exported library names its prompts without pictures."""

_DIGITS = re.compile(r"\d+")


def open_embeddings(path: str, options: SourceOptions) -> Source:
    """Opens .npy files or parquet files of embeddings.

    Raises:
        SourceError: there are none, or no prompts for them, or the rows do not match.
    """
    from unprompt.builders.sources.embedding_columns import EmbeddingColumnsSource, embedding_tables

    root = Path(path)
    if tables := embedding_tables(root, options):
        return EmbeddingColumnsSource(path, tables, options)
    return ArraysSource(root, options)


class ArraysSource(AlignedSource):
    """A .npy file or a folder of them, in name order, beside tables or .txt files with a row for each of their rows.

    An array's name, or its folder's, says whether it is of pictures or texts ("img_emb", "text_emb"). One that says
    neither is of pictures if its table says where they are, else of the table's prompts. Tables go with the arrays of
    their own numbers, else all of them together with all arrays together.
    """

    def __init__(self, root: Path, options: SourceOptions) -> None:
        folder = root if root.is_dir() else root.parent
        arrays = _named(folder, ".npy") if root.is_dir() else [root]
        if not arrays or not (root.is_dir() or root.suffix.lower() == ".npy"):
            raise SourceError(
                f"{root}: no embeddings; --format embeddings takes .npy files or parquet with a column of them"
            )
        tables = _tables(folder, root if not root.is_dir() else None)
        if not tables:
            raise SourceError(
                f"{root} holds embeddings but no prompts; put a table (.parquet, .jsonl, .csv) or a .txt beside it, "
                f"with a row for each embedding"
            )
        super().__init__(str(root), _parts(arrays, tables, options), options)


def _parts(arrays: Sequence[Path], tables: Sequence[Path], options: SourceOptions) -> list[Part]:
    alone = [path for path in arrays if path.stem.startswith(_PROMPT_ARRAY)]
    of_alone = [path for path in tables if path.stem.startswith(_PROMPT_TABLE)] if alone else []
    if alone and of_alone and len(alone) < len(arrays):
        rest = [path for path in arrays if path not in alone]
        of_rest = [path for path in tables if path not in of_alone]
        return _parts(rest, of_rest, options) + _parts(alone, of_alone, options)
    placed = find_column(RowFiles(tables).columns, options.image_column, PLACE_COLUMNS) is not None
    images = [path for path in arrays if _is_of_pictures(path, placed)]
    texts = [path for path in arrays if path not in images]
    kinds = [kind for kind in (images, texts) if kind]
    keys = [_key(path) for path in tables]
    if len(tables) > 1 and all([_key(path) for path in kind] == keys for kind in kinds):
        return [_part(images[i : i + 1], texts[i : i + 1], [table]) for i, table in enumerate(tables)]
    for files in (images, texts, tables):
        _check_order(files)
    return [_part(images, texts, tables)]


def _is_of_pictures(path: Path, placed: bool) -> bool:
    for name in (path.stem, path.parent.name):
        if _IMAGE_NAME.search(name):
            return True
        if _TEXT_NAME.search(name):
            return False
    return placed


def _part(images: Sequence[Path], texts: Sequence[Path], tables: Sequence[Path]) -> Part:
    return Part(ArrayFiles(images) if images else None, ArrayFiles(texts) if texts else None, RowFiles(tables))


def _key(path: Path) -> tuple[int, ...]:
    """The numbers in a file's name, by which an array and its table find each other."""
    return tuple(map(int, _DIGITS.findall(path.stem)))


def _check_order(files: Sequence[Path]) -> None:
    """Refuses names such as emb_2 and emb_10, of which nobody knows the order that was meant."""
    if list(files) != sorted(files, key=_key):
        raise SourceError(
            f"{files[0].parent}: the files' names and numbers sort differently; pad the numbers with zeros"
        )


def _named(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == suffix and not is_hidden(path.name))


def _tables(folder: Path, array: Path | None) -> list[Path]:
    """The tables in a folder or its ``metadata`` subfolder; for a single array, of its name or else the only one."""
    for place in (folder, folder / "metadata"):
        files = sorted(place.iterdir()) if place.is_dir() else []
        found = [
            file for file in files if (is_table(file) or file.suffix.lower() == ".txt") and not is_hidden(file.name)
        ]
        if array is not None:
            named = [file for file in found if file.stem == array.stem]
            found = named or (found if len(found) == 1 else [])
        if found:
            return found
    return []


def holds_arrays(names: Sequence[Path]) -> bool:
    """Whether any of a folder's files is an array."""
    return any(path.suffix.lower() == ".npy" for path in names)
