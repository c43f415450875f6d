"""The formats that `unprompt query` prints in, one function an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from unprompt.cli.csv_text import csv_text
from unprompt.cli.query_output import format_result, printable
from unprompt.search.results import QueryResult

CSV_HEADER = "image,prompt,score,negative_prompt"


def to_json(result: QueryResult) -> str:
    """One object on one line."""
    return json.dumps(result.to_dict(), allow_nan=False)


def to_txt(result: QueryResult) -> str:
    """The final prompt alone, on one line."""
    return printable(result.final.prompt)


def to_csv(result: QueryResult) -> str:
    """One row under `CSV_HEADER`."""
    negative = result.negative.prompt if result.negative else ""
    row = [result.image, printable(result.final.prompt), f"{result.final.score:.6f}", printable(negative)]
    return csv_text([row]).removesuffix("\n")


def to_a1111(result: QueryResult) -> str:
    """What AUTOMATIC1111's web UI reads from its prompt box: the prompt, then the negative prompt on its own line."""
    lines = [printable(result.final.prompt)]
    if result.negative:
        lines.append(f"Negative prompt: {printable(result.negative.prompt)}")
    return "\n".join(lines) + "\n"


FORMATS: Mapping[str, Callable[[QueryResult], str]] = {
    "text": format_result,
    "txt": to_txt,
    "csv": to_csv,
    "json": to_json,
    "a1111": to_a1111,
}
