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
    from unprompt.builders.sources.coco import find_captions
    from unprompt.builders.sources.diffusiondb import part_number
    from unprompt.pictures.archives import COMPRESSED_TARS, is_tar

    if part_number(path.name) is not None and path.suffix.lower() == ".zip":
        return "diffusiondb"
    if path.suffix.lower() == ".txt":
        return "prompts"
    if is_picture(path.name):
        return "metadata"
    if is_tar(path) or path.name.lower().endswith(COMPRESSED_TARS):
        return "webdataset"
    if path.suffix.lower() == ".npy":
        return "embeddings"
    if find_captions(path):
        return "coco"
    if is_table(path):
        return _recognise_table(path, options)
    raise SourceError(
        f"{path}: not recognised; a file can be a .txt of prompts, a .jsonl, .csv, .tsv or .parquet table, a picture, "
        f"a DiffusionDB part-NNNNNN.zip, a .tar shard, a .npy of embeddings, or COCO's captions_*.json"
    )


def _recognise_table(path: Path, options: SourceOptions) -> str:
    from unprompt.builders.sources.datasets import picture_tables
    from unprompt.builders.sources.embedding_columns import embedding_tables
    from unprompt.builders.sources.pairs import has_picture_column

    if embedding_tables(path, options):
        return "embeddings"
    if picture_tables(path):
        return "datasets"
    if options.image_column is not None:
        return "pairs"
    if _is_diffusiondb_table(path) or not has_picture_column(path, options):
        return "prompts"
    return "pairs" if _names_pictures(path, options) else "prompts"


def _is_diffusiondb_table(path: Path) -> bool:
    return {"image_name", "part_id", "prompt"} <= set(read_columns(path))


def _names_pictures(path: Path, options: SourceOptions) -> bool:
    """Whether any of the first rows names a picture that is there; a prompt list may well have a "path" column."""
    from unprompt.builders.sources.pairs import PairsSource

    if find_column(read_columns(path), options.prompt_column, PROMPT_COLUMNS) is None:
        return True  # so that the error speaks of the missing prompt column
    return any(not isinstance(entry, Skipped) for entry in islice(PairsSource(str(path), options), _LOOKED_AT))


def _recognise_folder(path: Path, options: SourceOptions) -> str:
    from unprompt.builders.sources.clip_retrieval import holds_clip_retrieval
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
    if holds_clip_retrieval(path):
        return "clip-retrieval"
    if find_parts(path):
        return "diffusiondb"
    if format := _recognise_containers(path, names, options):
        return format
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


def _recognise_containers(path: Path, names: list[Path], options: SourceOptions) -> str | None:
    """The format of a folder whose files hold many pictures, or embeddings, each; None for any other folder."""
    from unprompt.builders.sources.coco import find_captions
    from unprompt.builders.sources.datasets import picture_tables
    from unprompt.builders.sources.embedding_columns import embedding_tables
    from unprompt.builders.sources.embeddings import holds_arrays
    from unprompt.builders.sources.webdataset import find_shards
    from unprompt.pictures.rows import is_saved

    if is_saved(path):
        return "datasets"
    if find_captions(path):
        return "coco"
    if any(is_picture(child.name) for child in names):
        return None  # an array or archive beside pictures is not what the folder is about
    if embedding_tables(path, options) or holds_arrays(names):
        return "embeddings"
    if find_shards(path):
        return "webdataset"
    return "datasets" if picture_tables(path) else None


def _nothing_found(path: Path, names: list[Path]) -> str:
    from unprompt.builders.sources import FORMATS

    tables = [child.name for child in names if is_table(child) or child.suffix.lower() == ".txt"]
    if any(child.suffix.lower() in (".index", ".faiss") for child in names):
        return f"{path} holds an index, but not the embeddings that it was made from; name the folder with those"
    if tables:
        return f"{path} holds no pictures, only {', '.join(tables[:3])}; name that file itself for prompts alone"
    return (
        f"{path}: nothing recognised; looked for pictures (.png, .jpg, .webp, ...), a table of pairs (pairs.jsonl, "
        "metadata.csv, ...), DiffusionDB parts, .tar shards, img_emb/ with metadata/, .npy and parquet; --format takes "
        f"{', '.join(FORMATS)}"
    )
