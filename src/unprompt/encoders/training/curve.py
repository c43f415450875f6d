"""Draws the training curve: ``python -m unprompt.encoders.training.curve FIGURES PICTURE``; needs matplotlib."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from unprompt.errors import EncoderError, UnpromptError

SMOOTHED = 10
METRICS = (("recall@10", "Recall@10 of the prompt"), ("artist@10", "artist in the top 10"))


def draw(report: dict[str, Any], picture: Path) -> None:
    """Draws the loss of each step beside the development figures before the first epoch and after each.

    Args:
        report: what `train_starter` wrote after ``--choose``.
        picture: the file to write; its ending decides the format.

    Raises:
        EncoderError: matplotlib is not installed, or the report has no development figures.

    """
    if not report.get("dev by epoch"):
        raise EncoderError("the figures have no development figures by epoch: train with --choose")
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        plots = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise EncoderError(f"cannot draw without matplotlib ({error}): install matplotlib") from None
    figure, (left, right) = plots.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    losses, by_epoch = np.asarray(report["loss"]), report["dev by epoch"]
    epochs = len(by_epoch) - 1
    steps = (np.arange(len(losses)) + 1) / len(losses) * epochs
    smooth = np.convolve(losses, np.full(SMOOTHED, 1 / SMOOTHED), "valid")
    left.plot(steps, losses, color="lightgrey", linewidth=0.8, label="each step")
    left.plot(steps[SMOOTHED - 1 :], smooth, color="black", label=f"mean of {SMOOTHED} steps")
    left.set(xlabel="epoch", ylabel="training loss")
    left.legend()
    for row, name in enumerate(by_epoch[0]):
        for (metric, meaning), style in zip(METRICS, ("-o", "--s"), strict=True):
            if all(metric in epoch[name] for epoch in by_epoch) and (metric != "artist@10" or row < 2):
                values = [epoch[name][metric]["value"] for epoch in by_epoch]
                right.plot(range(epochs + 1), values, style, color=f"C{row}", label=f"{name}: {meaning}", markersize=4)
    right.set(xlabel="epoch", ylabel="development split", xticks=range(epochs + 1), ylim=(0, None))
    right.legend(fontsize=6)
    figure.savefig(picture, dpi=90)


@click.command()
@click.argument("figures", type=click.Path(exists=True, path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
def main(figures: Path, picture: Path) -> None:
    """Draw the curve in FIGURES, a JSON file that train_starter wrote, to PICTURE."""
    try:
        draw(json.loads(figures.read_text(encoding="utf-8")), picture)
    except UnpromptError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
