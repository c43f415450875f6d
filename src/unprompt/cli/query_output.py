"""How a query's answer reads on a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from unprompt.search.results import Analysis, QueryResult, ScoredFragments
from unprompt.types import Part

WIDTH = 80


def format_result(result: QueryResult) -> str:
    """Lays one answer out: the final prompt and its parts first, then prompts, neighbours and fragments with scores."""
    return "\n".join(_lines(result)) + "\n"


def format_analysis(analysis: Analysis) -> str:
    """Lays out the terms that fit a picture, by kind."""
    return "\n".join([printable(analysis.image), *_fragment_lines(analysis.fragments)]) + "\n"


def printable(text: str) -> str:
    """`text` on one line, without control characters: prompts are other people's, and terminals obey escapes."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shorten(text: str, width: int) -> str:
    """The beginning of a long text, on one line."""
    return textwrap.shorten(printable(text), width, placeholder=" ...")


def _lines(result: QueryResult) -> Iterator[str]:
    yield printable(result.image)
    if result.recorded is not None:
        yield "  recorded in the picture itself"
        yield from _wrapped("    ", result.recorded)
    yield "  final prompt"
    yield from _scored(result.final.score, result.final.prompt or "(none: the library has no prompts and no fragments)")
    if len(result.final.parts) == 1:
        (part,) = result.final.parts
        yield from _wrapped(" " * 13, f"[{part.kind}, {part.source}]")
    else:
        for part in result.final.parts:
            gain = f", gain {part.gain:+.3f}" if part.gain else ""
            yield from _scored(part.score, f"{_short(part)} [{part.kind}, {part.source}{gain}]", indent=9)
    if result.negative is not None:
        yield "  negative prompt"
        yield from _scored(result.negative.score, result.negative.prompt or "(none: there are no terms for it)")
    if result.prompts:
        yield "  prompts (fused ranks; 1 is first in all)"
        for rank, prompt in enumerate(result.prompts, start=1):
            yield from _scored(prompt.score, f"{prompt.prompt} [{prompt.source}]", rank)
    if result.neighbours:
        yield "  neighbours (cosine)"
        for neighbour in result.neighbours:
            hit = neighbour.hit
            yield from _scored(hit.score, f"{shorten(neighbour.record.prompt, 120)} [{hit.id}]", hit.rank)
    yield from _fragment_lines(result.fragments)


def _fragment_lines(fragments: ScoredFragments) -> Iterator[str]:
    for kind, found in fragments.items():
        calibrated = any(each.percentile is not None for each in found)
        yield f"  {printable(kind)} (cosine{', percentile' if calibrated else ''})"
        for rank, each in enumerate(found, start=1):
            percentile = "" if each.percentile is None else f"{100 * each.percentile:5.1f}%  "
            yield from _scored(each.score, percentile + each.text, rank)


def _scored(score: float, text: str, rank: int | None = None, indent: int = 2) -> Iterator[str]:
    place = "" if rank is None else str(rank)
    yield from _wrapped(f"{'':{indent}}{place:>3} {score:6.3f}  ", text)


def _wrapped(start: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
    )
    yield from lines or [start.rstrip()]


def _short(part: Part) -> str:
    """The part's words; of the prompt, which stands whole above, its beginning."""
    return shorten(part.text, 40) if part.kind == "prompt" else part.text
