"""Format "metadata": pictures that carry their prompt in their own file (AUTOMATIC1111, ComfyUI, InvokeAI, ...)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unprompt.builders.sources.common import NO_PROMPT, clean_metadata, clean_prompt, is_picture, walk_pictures
from unprompt.errors import SourceError
from unprompt.pictures.opening import PictureError
from unprompt.types import Entry, Picture, Skipped


class MetadataSource:
    """One picture, or a folder of them searched with all its subfolders, in name order."""

    format = "metadata"

    def __init__(self, path: str) -> None:
        self.root = Path(path)
        if self.root.is_file() and not is_picture(self.root.name):
            raise SourceError(f"{path}: not a picture; --format metadata takes a picture or a folder of pictures")

    def __iter__(self) -> Iterator[Entry | Skipped]:
        for path in walk_pictures(self.root):
            yield path if isinstance(path, Skipped) else recorded_entry(Picture(str(path)))


def recorded_entry(picture: Picture) -> Entry | Skipped:
    """The entry of a picture that carries its own prompt, else why there is none."""
    from unprompt.pictures.recorded import parse_texts
    from unprompt.pictures.texts import read_texts

    try:
        texts = read_texts(picture)
    except PictureError as error:
        return Skipped(picture.uri, error.reason, error.detail)
    except Exception as error:  # damaged metadata costs the prompt, whatever the decoder made of it
        return Skipped(picture.uri, NO_PROMPT, f"metadata cannot be read: {error}")
    recorded = parse_texts(texts)
    prompt = clean_prompt(recorded.prompt) if recorded else ""
    if recorded is None or not prompt:
        return Skipped(picture.uri, NO_PROMPT, "no sidecar, and none in the picture's metadata")
    return Entry(prompt, picture, clean_metadata({**recorded.metadata, "generator": recorded.generator}))
