"""Format "clip-retrieval": the folders of clip-retrieval's inference, and a library of our own, which has its layout.

``img_emb/img_emb_N.npy``, ``text_emb/text_emb_N.npy`` and ``metadata/metadata_N.parquet`` belong together by their
number; either array may be missing throughout. ``prompt_emb`` and ``prompts`` are our own prompts without pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

from unprompt.builders.sources.arrays import ArrayFiles
from unprompt.builders.sources.embedded_rows import AlignedSource, Part, RowFiles
from unprompt.builders.sources.options import SourceOptions
from unprompt.errors import SourceError

_LAYOUTS = (("img_emb", "text_emb", "metadata"), (None, "prompt_emb", "prompts"))
"""The folders of picture embeddings, prompt embeddings and tables."""


class ClipRetrievalSource(AlignedSource):
    """Shards by number, those of pictures before those of prompts alone; of a library, the committed ones."""

    format = "clip-retrieval"

    def __init__(self, path: str, options: SourceOptions) -> None:
        root = Path(path)
        if not root.is_dir():
            raise SourceError(f"{path}: not a folder; --format clip-retrieval takes one with img_emb/ and metadata/")
        parts = _library_parts(root) if (root / "manifest.json").exists() else _parts(root)
        if not parts:
            raise SourceError(f"{path}: no img_emb/img_emb_N.npy with metadata/metadata_N.parquet in it")
        from unprompt.errors import LibraryError
        from unprompt.index.shards import shard_origin

        try:
            fingerprint, _ = shard_origin(parts[0].table.paths[0])
        except LibraryError as error:
            raise SourceError(str(error)) from error
        super().__init__(path, parts, options, fingerprint)


def holds_clip_retrieval(root: Path) -> bool:
    """Whether a folder has the layout."""
    return any(
        (root / table).is_dir() and any(name and (root / name).is_dir() for name in (images, texts))
        for images, texts, table in _LAYOUTS
    )


def _parts(root: Path) -> list[Part]:
    parts = []
    for images_name, texts_name, table_name in _LAYOUTS:
        images = _numbered(root, images_name, ".npy") if images_name else {}
        texts, tables = _numbered(root, texts_name, ".npy"), _numbered(root, table_name, ".parquet")
        for arrays, name in ((images, images_name), (texts, texts_name)):
            odd = sorted(set(arrays) ^ set(tables)) if arrays else []
            if odd:
                there, lacking = (arrays, table_name) if odd[0] in arrays else (tables, name)
                raise SourceError(
                    f"{there[odd[0]]} has no counterpart in {root / str(lacking)}; restore it, or move it"
                )
        if images or texts:
            parts += [_part(images.get(n), texts.get(n), tables[n]) for n in sorted(tables)]
    return parts


def _numbered(root: Path, name: str, suffix: str) -> dict[int, Path]:
    pattern = re.compile(rf"{name}_(\d+)\{suffix}")
    found: dict[int, Path] = {}
    for path in sorted((root / name).iterdir()) if (root / name).is_dir() else ():
        if match := pattern.fullmatch(path.name):
            number = int(match[1])
            if number in found:
                raise SourceError(f"{path} and {found[number].name} have one number; move one of them away")
            found[number] = path
    return found


def _library_parts(root: Path) -> list[Part]:
    from unprompt.errors import LibraryError
    from unprompt.index.commit import current
    from unprompt.index.manifest import Manifest
    from unprompt.index.shards import SERIES

    try:
        manifest = Manifest.read(root)
    except LibraryError as error:
        raise SourceError(str(error)) from error
    parts = []
    for shard in manifest.shards:
        if shard.rows:
            files = [current(root, name, manifest) for name in SERIES[shard.series].files(shard.number)]
            *images, texts, table = files
            parts.append(_part(images[0] if images else None, texts, table))
    return parts


def _part(images: Path | None, texts: Path | None, table: Path) -> Part:
    return Part(ArrayFiles([images]) if images else None, ArrayFiles([texts]) if texts else None, RowFiles([table]))
