"""Where pictures and prompts come from: one reader a format, and the registry that opens them.

Importing this package reads no picture library, no parquet and no metadata parser; a reader's own module is imported
when a source of its format is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unprompt.builders.sources.options import DiffusionFilters, SourceOptions
from unprompt.errors import SourceError
from unprompt.types import Source

__all__ = ["FORMATS", "DiffusionFilters", "SourceOptions", "open_source"]


def _folder(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.folder import FolderSource

    return FolderSource(spec)


def _pairs(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.pairs import PairsSource

    return PairsSource(spec, options)


def _metadata(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.metadata import MetadataSource

    return MetadataSource(spec)


def _diffusiondb(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.diffusiondb import DiffusionDBSource

    return DiffusionDBSource(spec, options.diffusion_filters)


def _comfyui_templates(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.comfyui_templates import ComfyUITemplatesSource

    return ComfyUITemplatesSource(spec)


def _prompts(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.prompts import PromptsSource

    return PromptsSource(spec, options)


def _clip_retrieval(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.clip_retrieval import ClipRetrievalSource

    return ClipRetrievalSource(spec, options)


def _embeddings(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.embeddings import open_embeddings

    return open_embeddings(spec, options)


def _webdataset(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.webdataset import WebDatasetSource

    return WebDatasetSource(spec, options)


def _datasets(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.datasets import open_datasets

    return open_datasets(spec, options)


def _coco(spec: str, options: SourceOptions) -> Source:
    from unprompt.builders.sources.coco import CocoFolderSource

    return CocoFolderSource(spec)


FORMATS: dict[str, Callable[[str, SourceOptions], Source]] = {
    "folder": _folder,
    "pairs": _pairs,
    "metadata": _metadata,
    "diffusiondb": _diffusiondb,
    "comfyui-templates": _comfyui_templates,
    "prompts": _prompts,
    "clip-retrieval": _clip_retrieval,
    "embeddings": _embeddings,
    "webdataset": _webdataset,
    "datasets": _datasets,
    "coco": _coco,
}
"""Every format by the name that ``--format`` takes. To add one, write its reader and a line here."""

_DEFAULT_OPTIONS = SourceOptions()


def open_source(spec: str, format: str = "auto", options: SourceOptions = _DEFAULT_OPTIONS) -> Source:
    """Opens a source of entries; ``source.format`` names the format that was recognised.

    Args:
        spec: a file or folder, "comfyui-templates" for the installed template packages, or "datasets:NAME[:SPLIT]" for
            a data set of Hugging Face's hub.
        format: a key of `FORMATS`, or "auto" to recognise it.
        options: columns and filters, for the formats that have them.

    Raises:
        SourceError: an unknown format, a path that is missing or empty, or nothing recognised in it.
    """
    if format != "auto" and format not in FORMATS:
        raise SourceError(f"unknown format {format!r}; choose one of auto, {', '.join(FORMATS)}")
    if spec.startswith("datasets:"):
        if format not in ("auto", "datasets"):
            raise SourceError(f"{spec} has format datasets, not {format}; leave --format away")
        format = "datasets"
    elif spec != "comfyui-templates":
        spec = _existing_path(spec)
    if format == "auto":
        from unprompt.builders.sources.recognise import recognise

        format = recognise(spec, options)
    return FORMATS[format](spec, options)


def _existing_path(spec: str) -> str:
    """Absolute, so that a library's record of its pictures outlives the working directory."""
    if not spec.strip():
        raise SourceError("the source is an empty string; name a folder, a file or comfyui-templates")
    try:
        path = Path(spec).expanduser().absolute()
        path.stat()
    except FileNotFoundError as error:
        raise SourceError(f"{spec}: no such file or folder; check the path") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{spec!r} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    return str(path)
