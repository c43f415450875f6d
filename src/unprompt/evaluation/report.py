"""Everything that an evaluation leaves in its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unprompt.errors import EvaluationError
from unprompt.evaluation.page import render_page
from unprompt.evaluation.plots import draw_plots
from unprompt.evaluation.results import number
from unprompt.evaluation.run import Evaluation
from unprompt.evaluation.tables import to_csv, to_markdown
from unprompt.index.files import write_durably

logger = logging.getLogger(__name__)

RESULTS, ANSWERS = "results.json", "answers.jsonl"


def write_report(evaluation: Evaluation, results: Mapping[str, Any], folder: Path, system: str | None = None) -> None:
    """Writes the results as JSON, csv and Markdown, the answers, the plots and the page; each file is replaced whole.

    Plots and the page are left out, with a warning, where matplotlib or jinja2 are not installed.

    Args:
        evaluation: see there.
        results: of `to_results`.
        folder: made if it is missing.
        system: whose best and worst cases the page shows; the best one's by default.

    Raises:
        OSError: a file cannot be written.
    """
    texts = {
        RESULTS: json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": to_csv(results),
        "results.md": to_markdown(results),
        ANSWERS: to_lines(evaluation),
    }
    for name, text in texts.items():
        _save(folder / name, text.encode("utf-8", "replace"))
    for draw in (partial(_page, evaluation, results, system), partial(draw_plots, results)):
        try:
            for name, data in draw().items():
                _save(folder / name, data)
        except EvaluationError as error:
            logger.warning("%s; it is left out of the report", error)


def _page(evaluation: Evaluation, results: Mapping[str, Any], system: str | None) -> dict[str, bytes]:
    return {"report.html": render_page(evaluation, results, system).encode("utf-8", "replace")}


def to_lines(evaluation: Evaluation) -> str:
    """A JSON object a picture: picture, sha256, source, truth, and each system's answer and values."""
    lines = []
    for row, item in enumerate(evaluation.items):
        systems = {}
        for name, answers in evaluation.answers.items():
            values = {
                metric: number(float(found.scores.values[row]))
                for metric, found in evaluation.scored[name].items()
                if found.scores.values is not None
            }
            systems[name] = {"answer": answers[row].text, "values": values}
        facts = {"picture": item.picture.uri, "sha256": item.sha256, "source": item.source, "truth": item.prompt}
        lines.append(json.dumps({**facts, "systems": systems}, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def _save(path: Path, data: bytes) -> None:
    write_durably(path, lambda file: file.write(data))
