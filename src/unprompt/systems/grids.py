"""What trained captioners see of pictures: grids, each computed once, whatever the number of captioners."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unprompt.captioners.captioner import TrainedCaptioner, Writing
from unprompt.captioners.features import Backbone, FeatureCache, View
from unprompt.evaluation.items import Item
from unprompt.systems.pictures import Encodings
from unprompt.types import Candidate

_KEY = "unprompt-item"


class GridCaptioner(TrainedCaptioner):
    """See `TrainedCaptioner`."""

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", writing: Writing | None = None) -> GridCaptioner:
        """See `TrainedCaptioner.load`."""
        captioner = super().load(folder, device, writing)
        assert isinstance(captioner, cls)
        return captioner

    @property
    def backbone(self) -> Backbone:
        """What makes its grids."""
        return self._backbone


class PictureGrids:
    """Grids in half precision, as captioners are trained on them, kept on disk by the pictures' content.

    Args:
        folder: of all backbones' grids.
    """

    def __init__(self, folder: Path) -> None:
        self.encodings: dict[str, Encodings] = {}
        self._folder = folder
        self._caches: dict[str, FeatureCache] = {}

    def prepare(self, captioner: GridCaptioner, items: Sequence[Item]) -> None:
        """Computes the grids of a captioner's backbone that are not known yet.

        Raises:
            EncoderError: another process is filling this cache.
        """
        cache = self._cache(captioner.backbone)
        counted = self.encodings.setdefault(captioner.card.backbone, Encodings())
        held, started = len(cache), time.perf_counter()
        cache.rows([View(item.picture) for item in items])
        counted.pictures = max(counted.pictures, len(items))
        counted.encoded += len(cache) - held
        counted.seconds += time.perf_counter() - started if len(cache) > held else 0.0

    def read(self, captioner: GridCaptioner, items: Sequence[Item]) -> torch.Tensor:
        """(N, M, C) float32 on the captioner's device."""
        cache = self._cache(captioner.backbone)
        grids = cache.read(cache.rows([View(item.picture) for item in items])).astype(np.float32)
        return torch.from_numpy(grids).to(captioner.device)

    def _cache(self, backbone: Backbone) -> FeatureCache:
        if backbone.fingerprint not in self._caches:
            self._caches[backbone.fingerprint] = FeatureCache(self._folder, backbone)
        return self._caches[backbone.fingerprint]


class KnownPictures:
    """A `Captioner` for pictures whose grids are known: an engine hands it tokens in the place of pictures.

    Args:
        captioner: who writes.
        grids: where the grids are.
    """

    def __init__(self, captioner: GridCaptioner, grids: PictureGrids) -> None:
        self._captioner = captioner
        self._grids = grids
        self._items: dict[str, Item] = {}

    def token(self, item: Item) -> Image.Image:
        """What stands for an item's picture, so that it need not be decoded."""
        self._items[item.key] = item
        token = Image.new("1", (1, 1))
        token.info[_KEY] = item.key
        return token

    def prepare(self, items: Sequence[Item]) -> None:
        """Computes the grids that are not known yet."""
        self._grids.prepare(self._captioner, items)

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int,
        max_tokens: int,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        """See `unprompt.types.Captioner`; images are tokens."""
        grids = self._grids.read(self._captioner, [self._items[image.info[_KEY]] for image in images])
        return self._captioner.caption_grids(grids, num_beams, max_tokens, neighbours)
