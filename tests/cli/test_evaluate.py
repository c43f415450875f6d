from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_picture
from unprompt.cli import main

METRICS = "rouge-l,modifier-jaccard"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve new pictures, one whose prompt the library has, one that is in the library, and one that is none."""
    folder = tmp_path / "new"
    colours = ["red", "green", "blue"]
    rows = []
    for i in range(12):
        colour = colours[i % 3]
        colour_picture(folder / f"{i:02d}.png", colour, seed=900 + i)
        rows.append({"image": f"{i:02d}.png", "prompt": f"some {colour} object, charcoal {i % 4}"})
    colour_picture(folder / "known-prompt.png", "red", seed=990)
    rows.append({"image": "known-prompt.png", "prompt": "oil painting: a RED thing"})
    (folder / "known.png").write_bytes((tmp_path / "pictures" / "picture-0003.png").read_bytes())
    rows.append({"image": "known.png", "prompt": "something else"})
    rows.append({"image": "gone.png", "prompt": "gone"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


@pytest.fixture
def run(library_path: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("unprompt.systems.workshop.load_encoder", lambda name, device: FakeEncoder())

    def invoke(*arguments: object, systems: str = "rrf,composed", out: str = "out", code: int = 0) -> Result:
        words = ["--library", library_path, "--split", pairs, "--systems", systems, "--out", tmp_path / out]
        shown = ["--metrics", METRICS, "--resamples", 20]
        result = CliRunner().invoke(main, ["evaluate", *map(str, [*words, *shown, *arguments])])
        assert result.exit_code == code, result.output
        return result

    return invoke


def results(tmp_path: Path, out: str = "out") -> dict:
    return json.loads((tmp_path / out / "results.json").read_text())


def test_table_and_files(run: Callable[..., Result], tmp_path: Path) -> None:
    lines = run().stdout.splitlines()
    assert lines[0].split() == ["rrf", "composed"]
    assert "leaks: 1 by prompt, 1 by picture; left out" in lines
    assert "skipped: 1 missing" in lines
    assert "encoded by fake: 12 pictures now, 12 used" in lines
    assert lines[-1] == f"written to {tmp_path / 'out'}"
    found = results(tmp_path)
    assert found["pictures"] == 12
    assert found["split"]["sources"] == ["new"]
    assert found["primary"] == "rouge-l"
    assert "20 best" not in (tmp_path / "out" / "report.html").read_text()
    assert "6 best cases" in (tmp_path / "out" / "report.html").read_text()


def test_a_second_run_encodes_nothing_and_agrees(run: Callable[..., Result], tmp_path: Path) -> None:
    run()
    again = run(out="again")
    assert "encoded by fake: 0 pictures now, 12 used" in again.stdout
    first, second = results(tmp_path), results(tmp_path, "again")
    for each in (first, second):
        each.pop("encodings"), each.pop("command")
    assert first == second
    for name in ("answers.jsonl", "results.csv", "systems.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_leaks(run: Callable[..., Result], tmp_path: Path) -> None:
    assert "those by prompt are kept" in run("--keep-leaks=prompts", "--metrics", "recall@10", systems="rrf").stdout
    found = results(tmp_path)
    assert found["pictures"] == 13
    assert found["systems"]["rrf"]["metrics"]["recall@10"]["value"] == pytest.approx(1 / 13)
    assert "figures are too good" in run("--keep-leaks").stdout
    assert results(tmp_path)["pictures"] == 14


def test_samples_parts_and_names(run: Callable[..., Result], tmp_path: Path) -> None:
    run("--limit", 5, "--seed", 3, "--cases", "mine", systems="mine=rrf,prompts")
    found = results(tmp_path)
    assert (found["pictures"], found["seed"], list(found["systems"])) == (5, 3, ["mine", "prompts"])
    assert "cases of mine" in (tmp_path / "out" / "report.html").read_text()
    run("--part", "train", "--group-by", "random", systems="rrf")
    assert results(tmp_path)["split"]["counts"]["in_part"] == 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--systems", "rrf,enigne"], "unknown system 'enigne'"),
        (["--metrics", "blue-4"], "unknown metric 'blue-4' (did you mean bleu-N?)"),
        (["--metrics", "clipscore"], "clipscore needs a judge"),
        (["--metrics", "clipscore", "--judge", "starter:x"], "unknown encoder 'starter:x'"),
        (["--part", "tset"], "unknown part 'tset'"),
        (["--group-by", "colour"], "unknown grouping 'colour'"),
        (["--keep-leaks=some"], "unknown kind of leaks to keep 'some'"),
        (["--limit", "0"], "a limit of 0 pictures"),
        (["--cases", "prompts"], "no cases of 'prompts' can be shown"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--split", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
        (["--library", "nowhere"], "there is no library at nowhere"),
    ],
)
def test_mistakes_are_one_line(run: Callable[..., Result], arguments: list[str], message: str) -> None:
    lines = run(*arguments, code=1).stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    assert message in lines[-1]


def test_an_output_that_is_a_file(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("here already")
    assert "File exists" in run(code=1).stderr.splitlines()[-1]
