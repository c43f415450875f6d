"""What the joint encoder adds to its towers, on towers small enough to compute by hand in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from small_models import SIZES, picture
from unprompt.encoders.preprocessing import Preprocessing
from unprompt.errors import EncoderError
from unprompt.types import Encoder

torch = pytest.importorskip("torch")

from unprompt.encoders.joint import JointEncoder, Towers  # noqa: E402

PREPROCESS = Preprocessing(size=(6, 8), resize="squash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
DIM = 5
TEXTS = [f"{'long ' * (seed * 5 % 7)}text {seed}" for seed in range(11)]


class Towered:
    """A linear layer for pictures, another for texts, and a note of what went through."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.ModuleDict({"image": torch.nn.Linear(144, DIM), "text": torch.nn.Linear(1, DIM)})
        self.batches: list[int] = []
        self.widths: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        self.dtypes.add(pixels.dtype)
        assert not torch.is_grad_enabled()
        features: torch.Tensor = self.model["image"](pixels.reshape(len(pixels), -1))
        return features

    def texts(self, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self.batches.append(len(tokens["ids"]))
        self.widths.append(tokens["ids"].shape[1])
        total = tokens["ids"].sum(dim=1, keepdim=True).to(self.model["text"].weight.dtype) / 1000
        features: torch.Tensor = self.model["text"](total)
        return features

    def tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        width = max(len(text) for text in texts)
        return {"ids": torch.tensor([list(text.encode().ljust(width, b"\0")) for text in texts], dtype=torch.long)}

    def encoder(self, **options: Any) -> JointEncoder:
        towers = Towers(images=self.images, texts=self.texts, tokenize=self.tokenize)
        return JointEncoder("towered", DIM, "f" * 64, PREPROCESS, self.model, towers, **options)


@pytest.fixture
def towered() -> Towered:
    return Towered()


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_against_numpy(towered: Towered) -> None:
    images = [picture(*size) for size in SIZES]
    pixels = np.stack([PREPROCESS(image) for image in images]).astype(np.float64) / 255
    channels = ((pixels - PREPROCESS.mean) / PREPROCESS.std).transpose(0, 3, 1, 2).reshape(len(images), -1)
    layer = towered.model["image"]
    want = unit(channels @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    encoder = towered.encoder(batch_size=4)
    assert isinstance(encoder, Encoder)
    rows = encoder.encode_images(images)
    np.testing.assert_allclose(rows, want, atol=1e-6)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert sorted(towered.batches) == [3, 4, 4]
    np.testing.assert_array_equal(encoder.encode_images([PREPROCESS(image) for image in images]), rows)


def test_texts_against_numpy_in_the_order_given(towered: Towered) -> None:
    layer = towered.model["text"]
    totals = np.array([[sum(text.encode()) / 1000] for text in TEXTS])
    want = unit(totals @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    np.testing.assert_allclose(towered.encoder(batch_size=3).encode_texts(TEXTS), want, atol=1e-6)
    assert sorted(towered.batches) == [2, 3, 3, 3]
    assert towered.widths == sorted(towered.widths), "texts of like length share a batch"
    assert towered.widths[0] < towered.widths[-1]


def test_nothing_in_nothing_out(towered: Towered) -> None:
    encoder = towered.encoder()
    for rows in (encoder.encode_images([]), encoder.encode_texts([])):
        assert rows.shape == (0, DIM)
        assert rows.dtype == np.float32
    assert towered.batches == []


def test_half_precision_reaches_the_towers_and_not_the_result(towered: Towered) -> None:
    images = [picture(*size) for size in SIZES]
    want = towered.encoder().encode_images(images)
    towered.dtypes.clear()
    rows = towered.encoder(dtype=torch.float16).encode_images(images)
    assert towered.dtypes == {torch.float16}
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert 0 < np.abs(rows - want).max() < 0.01


def test_pictures_go_to_cuda_from_pinned_memory(towered: Towered, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that the CUDA path makes, on a machine without it: a copy that does not wait needs pinned memory."""
    calls: list[Any] = []
    arrived = torch.zeros(2)

    class Recorder:
        def pin_memory(self) -> Recorder:
            calls.append("pin")
            return self

        def to(self, device: Any, *, non_blocking: bool = False) -> torch.Tensor:
            calls.append((device.type, non_blocking))
            return arrived

    encoder = towered.encoder()
    monkeypatch.setattr(encoder, "device", SimpleNamespace(type="cuda"))
    assert encoder._to_device(Recorder()) is arrived
    assert calls == ["pin", ("cuda", True)]


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float32, "not finite in float32: its weights are damaged"),
        (torch.float16, "not finite in float16: use --device cpu"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(towered: Towered, dtype: torch.dtype, message: str) -> None:
    encoder = towered.encoder(dtype=dtype)
    towered.model["image"].weight[2, 3] = float("inf")
    with pytest.raises(EncoderError, match=message):
        encoder.encode_images([picture(9, 9)])


def test_another_width_than_announced_is_refused(towered: Towered) -> None:
    encoder = towered.encoder()
    encoder.dim = 7
    with pytest.raises(EncoderError, match="gives 5 numbers where 7 were announced"):
        encoder.encode_texts(["a"])


@pytest.mark.parametrize(
    "pixels", [np.zeros((6, 7, 3), np.uint8), np.zeros((6, 8, 3), np.float32)], ids=["size", "dtype"]
)
def test_pixels_that_are_not_preprocessed_are_refused(towered: Towered, pixels: Any) -> None:
    with pytest.raises(EncoderError, match="uint8"):
        towered.encoder().encode_images([pixels])
