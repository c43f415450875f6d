from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unprompt.encoders.preprocessing import Preprocessing, stack_pixels
from unprompt.encoders.torchvision_fix import ensure_torchvision
from unprompt.errors import EncoderError
from unprompt.pictures.opening import to_rgb


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


# Worked by hand from torchvision's rule: longer = int(side * long / short); margin = round(odd / 2), to even.
@pytest.mark.parametrize(
    ("width", "height", "resized", "left", "top"),
    [
        (301, 200, (96, 64), 16, 0),  # int(64 * 301 / 200) = int(96.32)
        (200, 304, (64, 97), 0, 16),  # int(97.28); 33 / 2 = 16.5 -> 16
        (310, 200, (99, 64), 18, 0),  # int(99.2); 35 / 2 = 17.5 -> 18
        (20, 20, (64, 64), 0, 0),
        (64, 64, (64, 64), 0, 0),
        (293, 3, (6250, 64), 3093, 0),  # int(6250.67); 6186 / 2
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_shortest_resizes_and_crops_as_worked_by_hand(
    width: int, height: int, resized: tuple[int, int], left: int, top: int, interpolation: str
) -> None:
    image = noise(width, height)
    expected = image.resize(resized, getattr(Image.Resampling, interpolation.upper()))
    expected = expected.crop((left, top, left + 64, top + 64))
    pixels = Preprocessing((64, 64), interpolation=interpolation)(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize("size", [(301, 200), (200, 304), (310, 200), (63, 65), (500, 61)])
@pytest.mark.parametrize("shortest", [None, 73, 50])
def test_shortest_equals_torchvision(size: tuple[int, int], shortest: int | None) -> None:
    ensure_torchvision()
    tv = pytest.importorskip("torchvision.transforms")
    image = noise(*size)
    theirs = tv.CenterCrop((64, 64))(tv.Resize(shortest or 64, tv.InterpolationMode.BICUBIC)(image))
    np.testing.assert_array_equal(Preprocessing((64, 64), shortest=shortest)(image), np.asarray(theirs))


def test_shortest_larger_or_smaller_than_the_crop() -> None:
    image = noise(100, 80)
    larger = np.asarray(image.resize((40, 32), Image.Resampling.BICUBIC).crop((8, 4, 32, 28)))
    np.testing.assert_array_equal(Preprocessing((24, 24), shortest=32)(image), larger)
    smaller = Preprocessing((24, 24), shortest=16)(image)  # 20x16: black above, below and beside
    assert smaller.shape == (24, 24, 3)
    np.testing.assert_array_equal(smaller[4:20, 2:22], np.asarray(image.resize((20, 16), Image.Resampling.BICUBIC)))
    assert not smaller[:4].any()
    assert not smaller[:, 22:].any()


def test_floor_crop_differs_where_the_margin_is_odd() -> None:
    image = noise(99, 64)
    whole = np.asarray(image)
    np.testing.assert_array_equal(Preprocessing((64, 64))(image), whole[:, 18 : 18 + 64])
    np.testing.assert_array_equal(Preprocessing((64, 64), crop="floor")(image), whole[:, 17 : 17 + 64])


def test_a_ribbon_does_not_fill_the_memory() -> None:
    ribbon = Image.new("RGB", (200_000, 1), (9, 9, 9))
    ribbon.paste((200, 100, 50), (99_900, 0, 100_100, 1))
    assert np.unique(Preprocessing((64, 64))(ribbon).reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]


def test_target_that_is_not_square() -> None:
    image = noise(100, 100)
    pixels = Preprocessing((32, 48))(image)
    np.testing.assert_array_equal(pixels, np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC))[8:40])
    squashed = Preprocessing((32, 48), resize="squash", interpolation="bilinear")(image)
    np.testing.assert_array_equal(squashed, np.asarray(image.resize((48, 32), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "LA", "PA", "RGBA", "RGBX", "I;16"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.full((9, 7), 200, dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((9, 7), 200 * 257, dtype=np.uint16))
    elif mode in ("LAB", "PA"):
        image = Image.new(mode, (7, 9))
    else:
        image = grey.convert(mode) if mode in ("I", "F", "P") else grey.convert("RGB").convert(mode)
    pixels = Preprocessing((8, 8))(image)
    assert pixels.shape == (8, 8, 3)
    if mode not in ("1", "LAB", "PA"):
        assert np.abs(pixels.astype(int) - 200).max() <= 3


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert np.asarray(to_rgb(clear)).min() == 255
    assert np.asarray(to_rgb(half))[0, 0].tolist() == [255, 127, 127]
    palette = Image.new("P", (8, 8), 3)
    palette.info["transparency"] = 3
    assert np.asarray(to_rgb(palette)).min() == 255


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(4, axis=0))
    np.testing.assert_array_equal(np.asarray(to_rgb(ramp))[0, :, 0], np.arange(256))


def test_round_trip_through_json_and_pickle() -> None:
    first = Preprocessing(
        (260, 130), "squash", "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), shortest=300, crop="floor"
    )
    assert Preprocessing.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    assert pickle.loads(pickle.dumps(first)) == first
    assert hash(Preprocessing.from_dict(first.to_dict())) == hash(first)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": [0, 5]},
        {"size": [5]},
        {"size": 5},
        {"size": [5, 5], "resize": "longest"},
        {"size": [5, 5], "interpolation": "box"},
        {"size": [5, 5], "crop": "ceil"},
        {"size": [5, 5], "std": [1.0, 0.0, 1.0]},
        {"size": [5, 5], "mean": [1.0]},
        {"size": [5, 5], "shortest": -1},
        {"size": [5, 5], "colour": "red"},
        {"resize": "squash"},
    ],
)
def test_wrong_values_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(EncoderError) as caught:
        Preprocessing.from_dict(wrong)
    assert "\n" not in str(caught.value)


def test_stacking() -> None:
    preprocess = Preprocessing((8, 8))
    image = noise(20, 30)
    stack = stack_pixels([image, preprocess(image)], preprocess, (8, 8))
    assert stack.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(stack[0], stack[1])
    assert stack_pixels([], preprocess, (8, 8)).shape == (0, 8, 8, 3)
    with pytest.raises(EncoderError, match=r"picture 1 is uint8 \(9, 8, 3\), the encoder takes uint8 \(8, 8, 3\)"):
        stack_pixels([image, np.zeros((9, 8, 3), np.uint8)], preprocess, (8, 8))
    with pytest.raises(EncoderError, match="picture 0 is float32"):
        stack_pixels([np.zeros((8, 8, 3), np.float32)], preprocess, (8, 8))  # type: ignore[list-item]
