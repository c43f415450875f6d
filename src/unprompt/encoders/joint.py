"""What encoders with an image and a text tower share: batching, half precision, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unprompt.encoders.parallel import map_side_by_side
from unprompt.encoders.preprocessing import Preprocessing, stack_pixels
from unprompt.errors import EncoderError
from unprompt.types import Embeddings, Pixels

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Towers:
    """The three functions by which models differ.

    Attributes:
        images: (B, 3, H, W) normalised pixels -> (B, D).
        texts: tokens -> (B, D).
        tokenize: B texts -> tokens, each (B, T), cut at the context length.

    """

    images: Callable[[Tensor], Tensor]
    texts: Callable[[Mapping[str, Tensor]], Tensor]
    tokenize: Callable[[Sequence[str]], Mapping[str, Tensor]]


class JointEncoder:
    """Pictures and texts through two towers into one space; implements `unprompt.types.Encoder`.

    Pixels travel to the device as uint8, a quarter of float32's size, and are normalised there. On CUDA the towers
    run in float16, pictures are copied from pinned memory on a stream of their own while the batch before is computed,
    and the results are fetched once at the end. Elsewhere all is float32. The L2 normalisation is float32 everywhere.
    """

    def __init__(
        self,
        name: str,
        dim: int,
        fingerprint: str,
        preprocess: Preprocessing,
        model: nn.Module,
        towers: Towers,
        *,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Moves the model to its device.

        Args:
            name: as the registry spells it, prefix included.
            dim: D.
            fingerprint: 64 hexadecimal digits.
            preprocess: to the model's input size.
            model: owner of the weights that `towers` uses; changed in place.
            towers: the model's functions.
            device: "cpu", "cuda", "cuda:1" or "mps".
            dtype: of the towers; by default float16 on CUDA, float32 elsewhere.
            batch_size: pictures, or texts, that go through a tower at once; by default 256 on CUDA, 16 elsewhere.

        """
        self.name = name
        self.dim = dim
        self.fingerprint = fingerprint
        self.preprocess = preprocess
        self.device = torch.device(device)
        cuda = self.device.type == "cuda"
        self.dtype = dtype or (torch.float16 if cuda else torch.float32)
        self.batch_size = batch_size or (256 if cuda else 16)
        self._copies: Any = torch.cuda.Stream(self.device) if cuda else None  # type: ignore[no-untyped-call]
        self._towers = towers
        self._model = model.eval().requires_grad_(False).to(self.device, self.dtype)
        self._mean = torch.tensor(preprocess.mean, dtype=torch.float32, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(preprocess.std, dtype=torch.float32, device=self.device).view(3, 1, 1)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image | Pixels]) -> Embeddings:
        """Embeds N pictures as (N, D): PIL pictures, or (H, W, 3) uint8 arrays that `preprocess` made.

        Raises:
            EncoderError: an array has another shape or dtype, or the model gives numbers that are not finite.

        """
        pieces = (images[part] for part in _parts(len(images), self.batch_size))
        return self._embeddings(self._each(lambda piece: self._towers.images(self._pixels(piece)), pieces, len(images)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeds N texts as (N, D); a text is cut at the model's context length.

        Raises:
            EncoderError: the model gives numbers that are not finite.

        """
        # Texts of like length share a batch, so that tokenizers which pad to the longest of a batch pad little.
        order = np.array(sorted(range(len(texts)), key=lambda i: len(texts[i])), dtype=np.intp)
        # Tokenized here, a batch at a time: tokenizers may not bear threads, and a GPU works meanwhile.
        batches = (self._towers.tokenize([texts[i] for i in order[p]]) for p in _parts(len(texts), self.batch_size))
        rows = self._each(
            lambda tokens: self._towers.texts({key: self._to_device(value) for key, value in tokens.items()}),
            batches,
            len(texts),
        )
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        embeddings[order] = self._embeddings(rows)
        return embeddings

    def _each(self, tower: Callable[[Piece], Tensor], pieces: Iterable[Piece], total: int) -> list[Tensor]:
        """Runs a tower on each piece: on the CPU one core a piece, where there are pieces for all of them."""
        threads = torch.get_num_threads()
        if self.device.type != "cpu" or threads == 1 or total <= (threads - 1) * self.batch_size:
            return [tower(piece) for piece in pieces]
        return map_side_by_side(torch.inference_mode()(tower), pieces)  # the mode is each thread's own

    def _pixels(self, images: Sequence[Image.Image | Pixels]) -> Tensor:
        stack = torch.from_numpy(stack_pixels(images, self.preprocess, self.preprocess.size))  # (B, H, W, 3) uint8
        pixels = self._to_device(stack).permute(0, 3, 1, 2).to(torch.float32)  # (B, 3, H, W)
        return pixels.div_(255).sub_(self._mean).div_(self._std).to(self.dtype)

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # On the towers' own stream the copy would wait for the batch before to be computed.
        with torch.cuda.stream(self._copies):  # None leaves the stream as it is
            moved = tensor.pin_memory().to(self.device, non_blocking=True)
        if self._copies is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._copies)
            moved.record_stream(computing)
        return moved

    def _embeddings(self, rows: Sequence[Tensor]) -> Embeddings:
        if not rows:
            return np.zeros((0, self.dim), dtype=np.float32)
        features = torch.cat(list(rows)).to(torch.float32)  # (N, D)
        if features.shape[1] != self.dim:
            raise EncoderError(
                f"{self.name} gives {features.shape[1]} numbers where {self.dim} were announced: use another model"
            )
        if not bool(torch.isfinite(features).all()):
            half = self.dtype != torch.float32
            remedy = "use --device cpu" if half else "its weights are damaged, fetch them again"
            precision = str(self.dtype).removeprefix("torch.")
            raise EncoderError(f"{self.name} gives numbers that are not finite in {precision}: {remedy}")
        return np.ascontiguousarray(nn.functional.normalize(features, dim=-1).cpu().numpy())


def _parts(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))
