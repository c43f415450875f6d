"""Rows as csv."""

from __future__ import annotations

import csv

from unprompt.cli.csv_text import csv_text


def test_what_is_written_reads_back() -> None:
    rows = [["a, b", 'say "red"', "two\nlines"], ["", "水 🎨", " blank "]]
    text = csv_text(rows)
    assert list(csv.reader(text.splitlines(keepends=True))) == rows
    assert csv_text([[1, None, 0.5]]) == "1,,0.5\n"
    assert csv_text([]) == ""
    assert csv_text(iter([(each for each in "ab")])) == "a,b\n"
