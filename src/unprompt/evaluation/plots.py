"""Results as plots: systems with their intervals, and the first metric by source and by length."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from unprompt.errors import EvaluationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120


def draw_plots(results: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name: systems.png, by-source.png, by-length.png.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    figures = {
        "systems.png": _systems(results),
        "by-source.png": _parts(results, "by_source", "source"),
        "by-length.png": _parts(results, "by_length", "words of the true prompt"),
    }
    return {name: _png(figure) for name, figure in figures.items()}


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise EvaluationError("plots need matplotlib: pip install 'unprompt[evaluation]'") from None
    # Not pyplot: that would choose a window system and keep the figure.
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _systems(results: Mapping[str, Any]) -> Figure:
    """A panel for each metric: a point a system, its interval as a line."""
    names, metrics = list(results["systems"]), list(results["metrics"])
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = _figure(1.6 + 2.6 * columns, rows * (0.9 + 0.24 * len(names)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for panel, metric in zip(panels, metrics, strict=False):
        for place, name in enumerate(names):
            found = results["systems"][name]["metrics"].get(metric)
            if found and found["value"] is not None:
                best = results["metrics"][metric]["best"] == name
                _point(panel, place, found, "tab:red" if best else "tab:blue")
        panel.set_title(results["metrics"][metric]["title"], fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(axis="x", alpha=0.3)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    panels[0].set_yticks(range(len(names)), labels=names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _point(panel: Axes, place: int, found: Mapping[str, Any], colour: str) -> None:
    panel.plot([found["value"]], [place], "o", color=colour, markersize=4)
    if found["low"] is not None:
        panel.plot([found["low"], found["high"]], [place, place], "-", color=colour, linewidth=1.5)


def _parts(results: Mapping[str, Any], key: str, label: str) -> Figure:
    """Groups of bars: a group for each part, a bar for each system, intervals as whiskers."""
    systems, metric = results["systems"], results["primary"]
    parts = next(iter(systems.values()))[key]
    figure = _figure(max(5.0, 1.5 + 0.25 * len(parts) * (len(systems) + 1)), 3.6)
    panel = figure.subplots()
    width = 0.85 / len(systems)
    for number, (name, system) in enumerate(systems.items()):
        places, values, errors = [], [], []
        for place, part in enumerate(parts):
            found = system[key][part]
            value = found["metrics"].get(metric)
            if value is not None and found["low"] is not None:
                places.append(place + (number - (len(systems) - 1) / 2) * width)
                values.append(value)
                errors.append((max(0.0, value - found["low"]), max(0.0, found["high"] - value)))
        panel.bar(places, values, width, yerr=list(zip(*errors, strict=True)) or None, label=name, capsize=1.5,
                  error_kw={"linewidth": 0.8})  # fmt: skip
    names = [f"{_short(part)}\n{described['pictures']:,}" for part, described in parts.items()]
    panel.set_xticks(range(len(parts)), labels=names, fontsize=7)
    panel.set_xlabel(f"{label}, and its number of pictures", fontsize=8)
    panel.set_ylabel(results["metrics"][metric]["title"], fontsize=8)
    panel.tick_params(axis="y", labelsize=7)
    panel.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=min(6, len(systems)), fontsize=7)
    return figure


def _short(name: str) -> str:
    """A source's name without the place it was found in."""
    return name.rstrip("/").rsplit("/", 1)[-1][:28] or name[:28]


def _png(figure: Figure) -> bytes:
    """The figure as a file; it names no program and no version, so equal figures are equal bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
