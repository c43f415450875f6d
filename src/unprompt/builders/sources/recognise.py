"""Tells the format of a source from what lies in it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from unprompt.builders.sources.common import is_hidden, is_picture, walk_pictures
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import PROMPT_COLUMNS, find_column, is_table, read_columns
from unprompt.errors import SourceError
from unprompt.types import Skipped

_LOOKED_AT = 1000
"""How many pictures are asked for a sidecar before a folder is taken to have none."""


def recognise(spec: str, options: SourceOptions) -> str:
    """Returns the format's name in the registry.

    Raises:
        SourceError: the source is empty, or nothing in it is known.
    """
    if spec == "comfyui-templates":
        return spec
    path = Path(spec)
    return _recognise_folder(path, options) if path.is_dir() else _recognise_file(path, options)


def _recognise_file(path: Path, options: SourceOptions) -> str:
    from unprompt.builders.sources.diffusiondb import part_number
    from unprompt.builders.sources.pairs import has_picture_column

    if part_number(path.name) is not None and path.suffix.lower() == ".zip":
        return "diffusiondb"
    if path.suffix.lower() == ".txt":
        return "prompts"
    if is_picture(path.name):
        return "metadata"
    if is_table(path):
        if options.image_column is not None:
            return "pairs"
        if _is_diffusiondb_table(path) or not has_picture_column(path, options):
            return "prompts"
        return "pairs" if _names_pictures(path, options) else "prompts"
    raise SourceError(
        f"{path}: not recognised; a file can be a .txt of prompts, a .jsonl, .csv, .tsv or .parquet table, "
        f"a picture, or a DiffusionDB part-NNNNNN.zip"
    )


def _is_diffusiondb_table(path: Path) -> bool:
    return {"image_name", "part_id", "prompt"} <= set(read_columns(path))


def _names_pictures(path: Path, options: SourceOptions) -> bool:
    """Whether any of the first rows names a picture that is there; a prompt list may well have a "path" column."""
    from unprompt.builders.sources.pairs import PairsSource

    if find_column(read_columns(path), options.prompt_column, PROMPT_COLUMNS) is None:
        return True  # so that the error speaks of the missing prompt column
    return any(not isinstance(entry, Skipped) for entry in islice(PairsSource(str(path), options), _LOOKED_AT))


def _recognise_folder(path: Path, options: SourceOptions) -> str:
    from unprompt.builders.sources.comfyui_templates import holds_templates
    from unprompt.builders.sources.diffusiondb import find_parts
    from unprompt.builders.sources.folder import find_sidecar
    from unprompt.builders.sources.pairs import has_picture_column

    try:
        names = sorted(child for child in path.iterdir() if not is_hidden(child.name))
    except OSError as error:
        raise SourceError(f"{path} cannot be listed: {error.strerror}") from error
    if not names:
        raise SourceError(f"{path} is an empty folder")
    if find_parts(path):
        return "diffusiondb"
    tables = [child for child in names if is_table(child) and has_picture_column(child, options)]
    if any(not _is_diffusiondb_table(table) for table in tables):
        return "pairs"
    pictures = [item for item in islice(walk_pictures(path), _LOOKED_AT) if isinstance(item, Path)]
    if any(find_sidecar(picture) is not None for picture in pictures):
        return "folder"
    if holds_templates(path):
        return "comfyui-templates"
    if pictures:
        return "metadata"
    raise SourceError(_nothing_found(path, names))


def _nothing_found(path: Path, names: list[Path]) -> str:
    tables = [child.name for child in names if is_table(child) or child.suffix.lower() == ".txt"]
    if tables:
        return f"{path} holds no pictures, only {', '.join(tables[:3])}; name that file itself for prompts alone"
    return (
        f"{path}: nothing recognised; looked for DiffusionDB parts (part-NNNNNN or .zip), a pairs table (pairs.jsonl, "
        "metadata.csv, ...), and pictures (.png, .jpg, .webp, ...); --format takes folder, pairs, metadata, "
        "diffusiondb, comfyui-templates or prompts"
    )
