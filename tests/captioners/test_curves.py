"""Loss curves as csv and PNG."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unprompt.captioners.curves import BLUE, HEIGHT, RED, WIDTH, Row, draw, save_csv, save_png, to_csv

ROWS = [
    Row(50, 0.5, 5.0, None, 1e-3),
    Row(100, 1.0, 4.0, 4.5, 5e-4),
    Row(150, 1.5, 3.25, None, 4e-4),
    Row(200, 2.0, 3.0, 4.125, 1e-4),
]


def test_csv_holds_every_row() -> None:
    found = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    assert [row["step"] for row in found] == ["50", "100", "150", "200"]
    assert [row["validation_loss"] for row in found] == ["", "4.5", "", "4.125"]
    assert float(found[2]["train_loss"]) == 3.25
    assert float(found[3]["learning_rate"]) == pytest.approx(1e-4)


def where(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    pixels = np.asarray(image)[40:]  # below the legend
    return np.argwhere((pixels == colour).all(axis=2))


def test_the_curves_fall_to_the_right() -> None:
    image = draw(ROWS, "transformer")
    assert image.size == (WIDTH, HEIGHT)
    for colour in (BLUE, RED):
        points = where(image, colour)
        left, right = points[points[:, 1].argmin()], points[points[:, 1].argmax()]
        assert right[0] > left[0] + 20
        assert right[1] > left[1] + 200


@pytest.mark.parametrize("rows", [[], ROWS[:1], [Row(1, 1.0, 2.0, 2.0, 1e-3)]])
def test_short_curves_can_be_drawn(rows: list[Row]) -> None:
    assert draw(rows, "nothing yet").size == (WIDTH, HEIGHT)


def test_files_are_written_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_csv(ROWS, tmp_path / name)
        save_png(ROWS, tmp_path / name, "lstm")
    for file in ("loss.csv", "loss.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    with Image.open(tmp_path / "one" / "loss.png") as image:
        assert image.format == "PNG"
