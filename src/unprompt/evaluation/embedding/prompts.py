"""Prompts for pictures, from a file that `unprompt query` or `unprompt caption` printed, or any like it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unprompt.errors import EvaluationError

_REMEDY = "give a csv or jsonl with image and prompt"


def read_prompts(path: Path) -> dict[str, str]:
    """Picture -> prompt, in the order of the file.

    A csv has the columns ``image`` and ``prompt``; a line of jsonl has ``image`` and ``prompt``, or ``final`` as
    ``unprompt query --json`` prints it, or ``captions`` as ``unprompt caption --json`` does (the first is taken).

    Raises:
        EvaluationError: the file cannot be read, a row lacks one of the two, or a picture is there twice.
    """
    prompts: dict[str, str] = {}
    for line, row in _rows(path):
        image, prompt = row.get("image"), _prompt(row)
        if not isinstance(image, str) or not isinstance(prompt, str) or not image:
            raise EvaluationError(f"{path}, line {line}: no image and prompt: {_REMEDY} in every row")
        if image in prompts:
            raise EvaluationError(f"{path}, line {line}: picture {image!r} is there twice: keep one of its prompts")
        prompts[image] = prompt
    if not prompts:
        raise EvaluationError(f"{path} holds no prompts: {_REMEDY}")
    return prompts


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == ".csv":
                reader = csv.DictReader(file)
                for row in reader:
                    yield reader.line_num, row
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    yield number, row if isinstance(row, dict) else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise EvaluationError(f"{path} cannot be read ({reason}): {_REMEDY}") from None


def _prompt(row: Mapping[str, Any]) -> Any:
    if "prompt" in row:
        return row["prompt"]
    final, captions = row.get("final"), row.get("captions")
    if isinstance(final, dict):
        return final.get("prompt")
    return captions[0].get("prompt") if isinstance(captions, list) and captions else None
