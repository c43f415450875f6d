"""Loss curves: rows of a run, written as csv and drawn as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from unprompt.index.files import write_durably

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 44
TICKS = 6
GREY, BLUE, RED, LINE = (120, 120, 120), (31, 119, 180), (214, 39, 40), (225, 225, 225)


@dataclass(frozen=True, slots=True)
class Row:
    """One point of the curve.

    Attributes:
        step: steps done.
        epoch: epochs done, as a fraction.
        train_loss: nats a token, the mean since the row before.
        validation_loss: nats a token on the development split; None but at the end of an epoch.
        learning_rate: of the last step.
    """

    step: int
    epoch: float
    train_loss: float
    validation_loss: float | None
    learning_rate: float


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as csv with a header; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [entry.name for entry in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in asdict(row).items()}
        )
    return text.getvalue()


def save_csv(rows: Sequence[Row], folder: Path) -> None:
    """Writes ``loss.csv`` into a folder."""
    text = to_csv(rows).encode()
    write_durably(folder / "loss.csv", lambda file: file.write(text))


def save_png(rows: Sequence[Row], folder: Path, title: str) -> None:
    """Writes ``loss.png`` into a folder."""
    picture = draw(rows, title)
    write_durably(folder / "loss.png", lambda file: picture.save(file, format="PNG"))


def draw(rows: Sequence[Row], title: str) -> Image.Image:
    """Training loss as a blue line and validation loss as red dots and line, over epochs: 720x400 RGB."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    train = [(row.epoch, row.train_loss) for row in rows]
    validation = [(row.epoch, row.validation_loss) for row in rows if row.validation_loss is not None]
    pen.text((LEFT, 8), title, fill="black", font=font)
    if not rows:
        return image
    last = max(row.epoch for row in rows) or 1.0
    losses = [loss for _, loss in (*train, *validation)]
    low, high = min(losses), max(losses)
    high = high if high > low else low + 1.0

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + point[0] / last * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - point[1]) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for tick in range(TICKS):
        value = low + (high - low) * tick / (TICKS - 1)
        _, y = place((0.0, value))
        pen.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=LINE)
        pen.text((LEFT - 6, y), f"{value:.2f}", fill=GREY, font=font, anchor="rm")
        x, _ = place((last * tick / (TICKS - 1), low))
        pen.text((x, HEIGHT - BOTTOM + 6), f"{last * tick / (TICKS - 1):.3g}", fill=GREY, font=font, anchor="mt")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6), "epoch", fill=GREY, font=font, anchor="mb")
    for points, colour, label, offset in ((train, BLUE, "training", 230), (validation, RED, "validation", 120)):
        placed = [place(point) for point in points]
        if len(placed) > 1:
            pen.line(placed, fill=colour, width=2)
        for x, y in placed if colour == RED or len(placed) == 1 else ():
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        pen.text((WIDTH - offset, 8), f"{label} loss", fill=colour, font=font)
    return image
