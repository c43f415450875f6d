"""``unprompt vocabulary mine``: real libraries and files, the fake encoder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click import ClickException
from click.testing import CliRunner, Result

from fakes import FakeEncoder
from tiny_library import write_library
from unprompt.builders.fragments import read_fragments
from unprompt.cli import main
from unprompt.errors import LibraryError, QueryError, SourceError, UnpromptError
from unprompt.types import Fragment

PROMPTS = {
    "a cat, oil on canvas, by Claude Monet": 6,
    "a dog, oil on canvas, soft light": 2,
    "a bird, ((soft light:1.2)), trending on artstation": 3,
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    write_library(tmp_path / "l", FakeEncoder(), prompts=PROMPTS, fragments=[Fragment("soft light", "flavor", "test")])
    return tmp_path / "l"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["vocabulary", "mine", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments: object) -> UnpromptError:
    words = ["vocabulary", "mine", *map(str, arguments)]
    error = CliRunner().invoke(main, words, standalone_mode=False).exception
    assert isinstance(error, ClickException), error
    exception = error.__cause__
    assert isinstance(exception, UnpromptError), exception
    assert "\n" not in str(exception)
    return exception


def test_the_table_has_what_the_vocabulary_lacks(library: Path) -> None:
    lines = run(library).stdout.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["kind", "medium", "flavor", "artist"]
    assert lines[1].split() == [
        "medium",
        "oil",
        "on",
        "canvas",
        "8",
        *["a", "cat,", "oil", "on", "canvas,", "by", "Claude", "Monet"],
    ]
    assert "Claude Monet " in lines[3]
    assert "soft light" not in "".join(line[:30] for line in lines)


def test_options_choose(library: Path) -> None:
    assert len(run(library, "--min-count", 1).stdout.splitlines()) == 7
    assert len(run(library, "--min-count", 1, "--limit", 2).stdout.splitlines()) == 3
    only = run(library, "--min-count", 1, "--kind", "trending", "--kind", "artist").stdout.splitlines()
    assert [line.split()[0] for line in only[1:]] == ["artist", "trending"]
    assert "nothing to propose" in run(library, "--min-count", 99).stdout


def test_json_is_one_object_a_line(library: Path) -> None:
    objects = [json.loads(line) for line in run(library, "--json", "--kind", "artist").stdout.splitlines()]
    assert objects == [
        {"kind": "artist", "text": "Claude Monet", "count": 6, "example": "a cat, oil on canvas, by Claude Monet"}
    ]


def test_the_csv_is_one_that_vocabulary_add_reads(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.csv"
    assert f"3 proposals written to {out}" in run(library, "--out", out).stdout
    assert read_fragments(str(out)) == [
        Fragment("oil on canvas", "medium", "mined:l", 8),
        Fragment("a cat", "flavor", "mined:l", 6),
        Fragment("Claude Monet", "artist", "mined:l", 6),
    ]
    with out.open(newline="") as file:
        assert next(csv.reader(file)) == ["text", "kind", "source", "count"]


def test_files_are_mined_with_and_without_a_library(library: Path, tmp_path: Path) -> None:
    text, table = tmp_path / "p.txt", tmp_path / "p.jsonl"
    text.write_text("a cow, soft light, ink\n" * 3, encoding="utf-8")
    table.write_text(json.dumps({"prompt": "a hen, soft light, ink"}) + "\n", encoding="utf-8")
    rows = [
        json.loads(line)
        for line in run("--from", text, "--from", table, "--min-count", 4, "--json").stdout.splitlines()
    ]
    assert [(row["text"], row["count"]) for row in rows] == [("ink", 4), ("soft light", 4)]
    known = run(library, "--from", text, "--from", table, "--min-count", 4, "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in known] == ["ink"]


def test_what_is_wrong_is_one_line(library: Path, tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / "nowhere"), LibraryError)
    assert "no such file" in str(refused("--from", tmp_path / "x.txt"))
    assert isinstance(refused("--from", tmp_path), SourceError)
    error = refused(library, "--kind", "colour")
    assert isinstance(error, QueryError)
    assert "'colour'; kinds are artist, medium" in str(error)
    assert "name a LIBRARY to mine" in run(code=2).output
    assert "0 is not in the range" in run(library, "--min-count", 0, code=2).output
