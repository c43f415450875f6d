"""The report as one HTML page that needs no other file: the table, and the best and the worst cases with pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import PurePath
from typing import Any

import numpy as np

from unprompt.errors import EvaluationError
from unprompt.evaluation.run import Evaluation
from unprompt.evaluation.tables import shown_value
from unprompt.pictures.opening import PictureError, open_picture, read_bytes
from unprompt.types import Picture

CASES = 20
SIDE = 160
"""Longest side of a thumbnail, in pixels."""


def render_page(evaluation: Evaluation, results: Mapping[str, Any], system: str | None = None) -> str:
    """The page as HTML; all texts of pictures and models are escaped.

    Args:
        evaluation: whose pictures are shown.
        results: of `to_results`.
        system: whose cases are shown; by default the one that the first metric likes best.

    Raises:
        EvaluationError: jinja2 is not installed, or there is no such system.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ModuleNotFoundError:
        raise EvaluationError("the HTML page needs jinja2: pip install 'unprompt[evaluation]'") from None
    name = system or evaluation.best(evaluation.metrics[0]) or evaluation.systems[0]
    if name not in evaluation.answers:
        raise EvaluationError(f"no cases of {name!r}: name one of {', '.join(evaluation.systems)}")
    metric, order = _order(evaluation, name)
    count = min(CASES, len(order) // 2) or len(order)
    environment = Environment(loader=PackageLoader("unprompt.evaluation"), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.j2").render(
        results=results,
        system=name,
        metric=metric,
        best=[_case(evaluation, name, metric, row) for row in order[:count]],
        worst=[_case(evaluation, name, metric, row) for row in order[::-1][:count] if len(order) > 1],
        shown=partial(shown_value, results),
    )


def _order(evaluation: Evaluation, system: str) -> tuple[str, list[int]]:
    """The first metric that has a value for each picture, and the rows from best to worst, equal ones in order."""
    for metric in evaluation.metrics:
        found = evaluation.scored[system].get(metric.name)
        if found is not None and found.scores.values is not None:
            values = found.scores.values if metric.lower_is_better else -found.scores.values
            order = np.argsort(values, kind="stable")
            return metric.name, [int(row) for row in order if not np.isnan(values[row])]
    raise EvaluationError("no metric has a value for each picture, so there are no cases: add sentence-cosine")


def _case(evaluation: Evaluation, system: str, metric: str, row: int) -> dict[str, Any]:
    item, values = evaluation.items[row], evaluation.scored[system][metric].scores.values
    assert values is not None
    return {
        "value": float(values[row]),
        "truth": item.prompt,
        "answer": evaluation.answers[system][row].text,
        "picture": PurePath(item.picture.uri).name,
        "thumbnail": thumbnail(item.picture),
    }


def thumbnail(picture: Picture) -> str:
    """A small JPEG as a data URI; "" where the picture cannot be read any more."""
    try:
        image = open_picture(picture, read_bytes(picture))
    except PictureError:
        return ""
    image.thumbnail((SIDE, SIDE))
    file = BytesIO()
    image.save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
