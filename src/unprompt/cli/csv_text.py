"""Rows as csv, for printing and for files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""One line a row, each ended by a line feed; None is an empty cell.

    Example:
        >>> csv_text([["image", "prompt"], ["a.png", 'a "red", round thing']])
        'image,prompt\na.png,"a ""red"", round thing"\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
