"""What systems share: a library, its encoder and engine, and the pictures as models see them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from unprompt.encoders import load_encoder
from unprompt.evaluation.cache import content_key, library_versions
from unprompt.evaluation.items import Item
from unprompt.index.files import sha256_file
from unprompt.index.gpu.device import device_kind
from unprompt.index.library import Library
from unprompt.index.manifest import MANIFEST
from unprompt.pictures.opening import open_picture, read_bytes
from unprompt.search.engine import Engine
from unprompt.systems.pictures import PictureEncoder
from unprompt.types import DraftEncoder, Embeddings, Encoder, Pixels, Preprocess

if TYPE_CHECKING:
    from unprompt.systems.grids import GridCaptioner, PictureGrids

LIBRARIES = ("torch", "transformers", "faiss-cpu", "faiss-gpu", "numpy", "pillow")
"""Whose versions can change the last digits of what models compute."""


class CountingEncoder:
    """An encoder that counts the texts it is given; everything else is the encoder's own."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.name, self.dim, self.fingerprint = encoder.name, encoder.dim, encoder.fingerprint
        self.preprocess: Preprocess = encoder.preprocess
        self.texts = 0

    def encode_images(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        """See `Encoder.encode_images`."""
        return self._encoder.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """See `Encoder.encode_texts`."""
        self.texts += len(texts)
        return self._encoder.encode_texts(texts)

    @property
    def drafts(self) -> bool:
        """See `DraftEncoder.drafts`."""
        return isinstance(self._encoder, DraftEncoder) and self._encoder.drafts

    def draft_texts(self, texts: Sequence[str]) -> Embeddings:
        """See `DraftEncoder.draft_texts`; by `encode_texts` where the encoder makes no drafts."""
        if not isinstance(self._encoder, DraftEncoder):
            return self.encode_texts(texts)
        self.texts += len(texts)
        return self._encoder.draft_texts(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


class Workshop:
    """Loads what systems need when the first of them needs it, once.

    Args:
        library: the one that is evaluated.
        cache: the folder in which pictures' encodings are kept.
        device: where models run.
    """

    def __init__(self, library: Library, cache: Path, device: str = "cpu") -> None:
        self.library = library
        self.device = device
        self._cache = cache
        made_by = library.manifest.encoder
        self.embeddings = PictureEncoder(made_by.fingerprint, lambda: self.encoder, encodings_folder(cache, device))
        self._captioners: dict[Path, GridCaptioner] = {}

    @cached_property
    def encoder(self) -> CountingEncoder:
        """The library's.

        Raises:
            LibraryError: the encoder is not the one that made the library.
            EncoderError: it cannot be loaded.
        """
        encoder = CountingEncoder(load_encoder(self.library.manifest.encoder.name, device=self.device))
        Engine(self.library, encoder)  # compares the two
        return encoder

    @cached_property
    def grids(self) -> PictureGrids:
        """The grids of captioners' backbones."""
        from unprompt.systems.grids import PictureGrids

        return PictureGrids(encodings_folder(self._cache, self.device) / "grids")

    def captioner(self, folder: Path) -> GridCaptioner:
        """The captioner of a checkpoint folder.

        Raises:
            CaptionerError: the folder holds no captioner, or its backbone cannot be had.
        """
        from unprompt.systems.grids import GridCaptioner

        if folder not in self._captioners:
            self._captioners[folder] = GridCaptioner.load(folder, self.device)
        return self._captioners[folder]

    @property
    def texts_encoded(self) -> int:
        """How many texts the library's encoder had so far; nothing is loaded to say it."""
        return self.encoder.texts if "encoder" in self.__dict__ else 0

    @property
    def composers(self) -> frozenset[str]:
        """The name and fingerprint of the library's encoder."""
        made_by = self.library.manifest.encoder
        return frozenset({made_by.name, made_by.fingerprint})

    @cached_property
    def programs(self) -> str:
        """What stands for the programs that compute, and the kind of device."""
        return content_key(library_versions(LIBRARIES), device_kind(self.device))

    @cached_property
    def fingerprint(self) -> str:
        """What stands for the library, its encoder among it, where it is searched, and the programs that compute."""
        searched = device_kind(self.library.search_device)  # an index on a GPU may find other rows
        return content_key(sha256_file(self.library.path / MANIFEST), searched, self.programs)

    def open(self, item: Item) -> Image.Image:
        """The picture itself.

        Raises:
            PictureError: it cannot be read any more.
        """
        return open_picture(item.picture, read_bytes(item.picture))

    def encodings(self) -> dict[str, dict[str, Any]]:
        """Model -> how many pictures it was asked for, and encoded."""
        name = self.library.manifest.encoder.name
        grids = self.grids.encodings if "grids" in self.__dict__ else {}
        found = {name: self.embeddings.encodings, **grids}
        return {model: counted.to_dict() for model, counted in found.items()}


def encodings_folder(cache: Path, device: str) -> Path:
    """Where pictures' encodings are kept: networks round otherwise on another kind of device."""
    return cache / "pictures" / device_kind(device)
