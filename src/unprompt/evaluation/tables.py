"""Results as tables: for the terminal, Markdown and csv."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
Rows = list[list[str]]

_COSTS = ("texts encoded a picture", "seconds a picture", "peak memory, MB")
CSV_HEADER = ["system", "metric", "part", "of", "pictures", "value", "low", "high"]
_GAP = 2
_SMALL = 2.5
"""Metrics whose values are all below are shown with three digits after the point."""


def to_terminal(results: Results, width: int | None = None) -> str:
    """A column a system, a row a metric, aligned; the best of each row has a star, the first row's intervals follow.

    Args:
        results: of `to_results`.
        width: of the terminal in characters; systems that do not fit follow in another table. None for no limit.
    """
    level = round(100 * results["statistics"]["level"])
    tables = ["\n".join(_aligned(rows)) for rows in _blocks([*_terminal_rows(results)], width)]
    below = f"{results['pictures']:,} pictures of {results['groups']:,} prompts; * best; intervals of {level}%"
    return "\n\n".join(tables) + f"\n{below}"


def _blocks(rows: Rows, width: int | None) -> Iterator[Rows]:
    """The columns in as many tables as their width asks for, each with the first column and one more at least."""
    widths = [_GAP + max(map(len, column)) for column in zip(*rows, strict=True)]
    start = 1
    while start < len(widths):
        stop = start + 1
        while stop < len(widths) and (width is None or widths[0] - _GAP + sum(widths[start : stop + 1]) <= width):
            stop += 1
        yield [[row[0], *row[start:stop]] for row in rows]
        start = stop


def _terminal_rows(results: Results) -> Iterator[list[str]]:
    systems = results["systems"]
    yield ["", *systems]
    for metric, about in results["metrics"].items():
        stars = ["*" if about["best"] == name else " " for name in systems]
        shown = [_shown(results, name, metric) + star for name, star in zip(systems, stars, strict=True)]
        yield [about["title"], *shown]
        if metric == results["primary"]:
            yield [
                "",
                *(_ends(results, metric, system["metrics"].get(metric), "{}-{} ") for system in systems.values()),
            ]
    for place, title in enumerate(_COSTS):
        yield [title, *(_costs(system)[place] + " " for system in systems.values())]


def to_markdown(results: Results) -> str:
    """The whole report but the pictures."""
    level, primary = round(100 * results["statistics"]["level"]), results["primary"]
    costs = [[name, *_costs(system)] for name, system in results["systems"].items()]
    notes = [f"- `{name}`: {each['title']}; {each['note']}" for name, each in results["metrics"].items()]
    sections = {
        "Evaluation": "\n".join(_facts(results)),
        "Systems": f"Values with {level}% intervals from resampling prompts; the best in bold.\n\n"
        + _markdown([*_value_rows(results)]),
        "What it cost": "Seconds are without the encoding of the picture; memory is the whole process's.\n\n"
        + _markdown([["system", *_COSTS], *costs]),
        "Paired tests": f"The best system of each metric against each other one: difference, {level}% interval, and "
        "two-sided p from swapping answers prompt by prompt, not corrected for the number of tests.\n\n"
        + _markdown([*_comparison_rows(results)]),
        f"{primary} by source": _markdown([*_part_rows(results, "by_source")]),
        f"{primary} by words of the true prompt": _markdown([*_part_rows(results, "by_length")]),
        "Metrics": "\n".join(notes),
    }
    if preset := results.get("preset"):
        sections[f"Published figures of {preset['name']}"] = _markdown([*_published_rows(preset)])
    parts = [f"{'#' if title == 'Evaluation' else '##'} {title}\n\n{text}\n" for title, text in sections.items()]
    return "\n".join(parts)


def to_csv(results: Results) -> str:
    """One row a system, metric and part: all pictures first, then sources, then lengths."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for name, system in results["systems"].items():
        for metric, found in system["metrics"].items():
            values = [found["value"], found["low"], found["high"]]
            writer.writerow([name, metric, "all", "", results["pictures"], *map(_blank, values)])
        for kind in ("source", "length"):
            for part, found in system[f"by_{kind}"].items():
                for metric, value in found["metrics"].items():
                    ends = [found["low"], found["high"]] if metric == results["primary"] else [None, None]
                    writer.writerow([name, metric, kind, part, found["pictures"], *map(_blank, [value, *ends])])
    return text.getvalue()


def _facts(results: Results) -> Iterator[str]:
    """What was evaluated, a fact a line; results of other runs may lack some."""
    yield f"- {results['pictures']:,} pictures of {results['groups']:,} prompts"
    if command := results.get("command"):
        yield f"- command: `{shlex.join(command)}`"
    if library := results.get("library"):
        yield (
            f"- library: `{library['path']}`, {library.get('pictures', 0):,} pictures, {library.get('prompts', 0):,} "
            f"prompts, {library.get('fragments', 0):,} fragments, encoder {library['encoder']} "
            f"({library['encoder_fingerprint'][:12]})"
        )
    if split := results.get("split"):
        yield f"- split: {_listed(split['counts'])}, from {', '.join(split['sources'])}"
        yield f"- chosen by: {_listed(split['selection'])}"
        if split["skipped"]:
            yield f"- skipped: {_listed(split['skipped'])}"
    if preset := results.get("preset"):
        data = "DiffusionDB, as far as can be told" if preset["genuine"] else "marked as NOT DiffusionDB"
        yield f"- preset: {preset['name']}. {preset['about']} Data: {data}"
        yield f"- left open by it: {'; '.join(preset['unknowns'])}"
    if leaks := results.get("leaks"):
        found = f"{leaks['by_prompt']:,} by prompt, {leaks['by_picture']:,} by picture"
        yield f"- in the library: {found}; kept: {leaks['kept']}"
    for model, counted in results.get("encodings", {}).items():
        yield f"- encoded by {model}: {counted['encoded_now']:,} pictures in this run, {counted['pictures']:,} used"
    if left_out := results.get("left_out"):
        yield f"- not measured: {', '.join(left_out.values())}"
    if versions := results.get("versions"):
        yield f"- {_listed(versions)}"


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if value is not None)


def _value_rows(results: Results) -> Iterator[list[str]]:
    systems = results["systems"]
    yield ["", *systems]
    for metric, about in results["metrics"].items():
        cells = []
        for name, system in systems.items():
            shown = _shown(results, name, metric)
            shown = f"**{shown}**" if about["best"] == name else shown
            cells.append(f"{shown} {_ends(results, metric, system['metrics'].get(metric), '[{}, {}]')}".strip())
        yield [about["title"], *cells]


def _ends(results: Results, metric: str, found: Mapping[str, Any] | None, pattern: str) -> str:
    """The ends of an interval; "" where there is none."""
    if found is None or found["low"] is None:
        return ""
    return pattern.format(*(shown_value(results, metric, found[end]) for end in ("low", "high")))


def _published_rows(preset: Mapping[str, Any]) -> Iterator[list[str]]:
    yield ["system", "metric", "value", "comparable", "why"]
    for each in preset["published"]:
        compares = "yes" if each["comparable"] else "no"
        yield [each["system"], each["metric"], f"{each['value']:g}", compares, each["reason"]]


def _comparison_rows(results: Results) -> Iterator[list[str]]:
    yield ["metric", "best", "other", "difference", "p"]
    for each in results["comparisons"]:
        difference, low, high = (
            shown_value(results, each["metric"], each[key]) for key in ("difference", "low", "high")
        )
        p = "" if each["p"] is None else f"{each['p']:.4f}"
        yield [each["metric"], each["best"], each["other"], f"{difference} [{low}, {high}]", p]


def _part_rows(results: Results, key: str) -> Iterator[list[str]]:
    systems, metric = results["systems"], results["primary"]
    first = next(iter(systems.values()))[key]
    yield ["", "pictures", *systems]
    for part, described in first.items():
        cells = []
        for system in systems.values():
            found = system[key][part]
            value = found["metrics"].get(metric)
            cells.append(f"{shown_value(results, metric, value)} {_ends(results, metric, found, '[{}, {}]')}".strip())
        yield [part, f"{described['pictures']:,}", *cells]


def _costs(system: Mapping[str, Any]) -> list[str]:
    cost = system["cost"]
    return [
        f"{cost['texts_encoded_per_picture']:.1f}",
        f"{cost['seconds_per_picture']:.4f}",
        str(cost["peak_memory_mb"]),
    ]


def _shown(results: Results, system: str, metric: str) -> str:
    found = results["systems"][system]["metrics"].get(metric)
    return "" if found is None else shown_value(results, metric, found["value"])


def shown_value(results: Results, metric: str, value: float | None) -> str:
    """A value with as many digits as all values of its metric are shown with."""
    if value is None:
        return ""
    known = [system["metrics"].get(metric, {}).get("value") for system in results["systems"].values()]
    small = max((abs(each) for each in known if each is not None), default=0.0) <= _SMALL
    return f"{value:.3f}" if small else f"{value:.1f}"


def _blank(value: float | None) -> str:
    return "" if value is None else repr(value)


def _markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append((" " * _GAP).join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return lines
