"""The figures of the comparison as the Markdown table of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import Any

Figures = dict[str, Any]
HEADER = ("| | clip-interrogator | unprompt | ratio | CPU time | goal |", "|---|---|---|---|---|---|")


def markdown(figures: Figures) -> str:
    """Every measure that `figures` holds as a row: theirs, ours, how many times better, and the goal."""
    rows = [*HEADER]
    if "ranking" in figures:
        rows += _ranking(figures["ranking"])
    if "best" in figures:
        rows += _best(figures["best"])
    for mode, each in figures.get("batches", {}).items():
        rows += _batch(mode, each)
    for part, peak in figures["peak MiB"].items():
        ratio = f"{peak['ci'] / peak['ours']:.2f}x"
        rows.append(
            _row(f"peak memory (RSS) after {part}", f"{peak['ci']:,.0f} MiB", f"{peak['ours']:,.0f} MiB", ratio)
        )
    return "\n".join(rows)


def _ranking(figures: Figures) -> Iterator[str]:
    right = figures["of the true top 100"]
    exact = {name: f"{sum(count == 100 for count in counts)}" for name, counts in right.items()}
    mean_least = {name: f"{mean(counts):.1f} ({min(counts)})" for name, counts in right.items()}
    name = f"of the true top 100 of {figures['terms']:,}: mean (least) of {figures['pictures']} pictures"
    yield _row(name, mean_least["ci"], mean_least["ours"], goal="100")
    yield _row("the same in batches of 64", "", mean_least["ours in batches"], goal="100")
    yield _row("pictures whose top 100 is exact, ties allowed", exact["ci"], exact["ours"], goal="all")
    deep = {name: f"{mean(counts):,.0f} ({min(counts):,})" for name, counts in figures["of the true top 2048"].items()}
    yield _row("of the true top 2,048, which CI's `best` is made of", deep["ci"], deep["ours"], goal="2,048")
    yield _timed("ranking one picture", figures["one"], "50x")
    yield _timed("ranking, a picture of a batch of 64", figures["in batches"], "400x")


def _best(figures: Figures) -> Iterator[str]:
    pictures, scores, encodes = figures["pictures"], figures["mean score"], figures["mean encodes"]
    share = f"{figures['as good']} of {pictures}"
    yield _row("`best`, pictures with at least CI's final score", "", share, goal="95%")
    gain = f"{scores['ours'] - scores['ci']:+.4f}"
    yield _row("`best`, mean final score", f"{scores['ci']:.4f}", f"{scores['ours']:.4f}", gain, goal="higher")
    ratio = f"{figures['encodes ratio']:.0f}x (least {figures['least encodes ratio']:.0f}x)"
    yield _row("`best`, texts encoded a picture", f"{encodes['ci']:,.0f}", f"{encodes['ours']:,.0f}", ratio, goal="20x")
    over = figures["over the limit"]
    yield _row("`best`, prompts of more than 77 tokens", f"{over['ci']}", f"{over['ours']}", goal="0")
    if figures["one"]:
        yield _timed(f"`best`, one picture ({figures['in turn']} in turn)", figures["one"], "10x")
    batch = figures["ours in one batch"]
    name = f"`best`, a picture of one batch of {pictures} ({batch['same prompts']} prompts as one by one)"
    yield _row(name, "", _seconds(batch["seconds"]))


def _batch(mode: str, figures: Figures) -> Iterator[str]:
    scores = figures["mean score"]
    yield _timed(f"`{mode}`, a picture of 64 (CI one by one, ours one batch)", figures)
    yield _row(f"`{mode}`, mean score", f"{scores['ci']:.4f}", f"{scores['ours']:.4f}")


def _timed(name: str, figures: Figures, goal: str = "") -> str:
    seconds, ratio = figures["seconds"], figures["ratio"]
    times = f"{ratio['median']:.0f}x ({ratio['least']:.0f}x to {ratio['most']:.0f}x)"
    return _row(name, _seconds(seconds["ci"]), _seconds(seconds["ours"]), times, f"{figures['cpu ratio']:.0f}x", goal)


def _row(name: str, ci: str, ours: str, ratio: str = "", cpu: str = "", goal: str = "") -> str:
    return f"| {' | '.join((name, ci, ours, ratio, cpu, goal))} |"


def _seconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.1 else f"{1000 * seconds:.2f} ms"
