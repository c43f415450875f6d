"""``unprompt index`` and the limits of ``unprompt build``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from unprompt.cli import main
from unprompt.errors import LibraryError
from unprompt.index.manifest import Manifest


def run(*arguments: str | Path, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


def test_an_index_is_rebuilt_tuned_and_described(library_path: Path) -> None:
    assert "exact search, recall 1" in run("index", "report", library_path)
    made = run("index", "rebuild", library_path, "--index", "IVF4,SQfp16", "--recall", "0.9")
    assert "image index: IVF4,SQfp16 (nprobe=" in made
    assert "why       as asked for" in made
    assert run("index", "report", library_path) == made
    tuned = json.loads(run("index", "tune", library_path, "--recall", "1", "--which", "image", "--json"))
    assert set(tuned["indexes"]) == {"image"}
    assert tuned["indexes"]["image"]["figures"]["recall_10"] == 1.0
    facts = json.loads(run("index", "report", library_path, "--json"))
    assert facts["indexes"]["image"]["report"] == tuned["indexes"]["image"]
    assert facts["indexes"]["image"]["index"]["goal"] == {"recall": 1.0}
    run("verify", library_path)


def test_limits_choose_the_index(library_path: Path) -> None:
    described = run("index", "rebuild", library_path, "--index", "auto", "--max-memory", "8GB", "--max-latency", "10s")
    assert "Flat" in described
    assert Manifest.read(library_path).indexes["image"].goal == {"max_memory": 8 * 10**9, "max_latency": 10.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-memory", "lots"], "use one such as 8GB"),
        (["--max-latency", "fast"], "use one such as 10ms"),
        (["--recall", "2"], "up to 1"),
        (["--index", "Nonsense"], "another FAISS factory string"),
    ],
)
def test_bad_values_are_one_line(options: list[str], message: str, library_path: Path) -> None:
    output = run("index", "rebuild", library_path, *options, status=1)
    assert message in output
    assert output.count("\n") == 1


def test_a_missing_gpu_is_one_line(library_path: Path) -> None:
    from unprompt.index.gpu.device import resolve

    try:
        resolve("cuda")
    except LibraryError as error:
        message = str(error)
    else:
        pytest.skip("there is a GPU here")
    assert run("index", "rebuild", library_path, "--device", "cuda", status=1) == f"Error: {message}\n"


def test_a_folder_that_is_no_library_is_one_line(tmp_path: Path) -> None:
    for command in ("tune", "rebuild", "report", "compact"):
        assert "is not a library" in run("index", command, tmp_path, status=1)


def test_a_build_takes_limits_and_keeps_them(tmp_path: Path) -> None:
    from fakes import colour_folder

    colour_folder(tmp_path / "pictures", 12)
    arguments = ["build", tmp_path / "pictures", "--library", tmp_path / "library", "--workers", "0"]
    run(*arguments, "--max-memory", "1GB")
    assert Manifest.read(tmp_path / "library").indexes["image"].goal == {"max_memory": 10**9}
    run(*arguments)
    assert Manifest.read(tmp_path / "library").indexes["image"].goal == {"max_memory": 10**9}
    run(*arguments, "--max-memory", "2GB", "--recall", "0.9")
    assert Manifest.read(tmp_path / "library").indexes["image"].goal == {"recall": 0.9, "max_memory": 2 * 10**9}


def test_a_build_reports_what_its_indexes_reach(tmp_path: Path) -> None:
    from fakes import colour_folder

    colour_folder(tmp_path / "pictures", 12)
    arguments = ["build", tmp_path / "pictures", "--library", tmp_path / "library", "--workers", "0", "--index"]
    assert "held-out queries" not in run(*arguments, "Flat")
    output = run(*arguments, "IVF2,SQfp16")
    assert output.count("held-out queries") == 2
    assert output.count("why       as asked for") == 2
    printed = run(*arguments, "IVF3,SQ8", "--json")
    facts = json.loads(printed[printed.index("{") :])  # a progress bar stands before it
    assert facts["index_reports"]["image"]["factory"] == "IVF3,SQ8"


def test_small_shards_are_joined(library_path: Path) -> None:
    assert run("index", "compact", library_path, "--shard-size", "16") == (
        f"{library_path}: 3 shards, none of them to be joined\n"
    )
    report = run("index", "compact", library_path)
    assert report.startswith(f"{library_path}: 3 shards are now 1, ")
    assert report.endswith(" MB; 40 rows were written anew, the indexes are as they were\n")
    facts = json.loads(run("index", "compact", library_path, "--json"))
    assert (facts["shards_before"], facts["shards_after"], facts["rows_moved"]) == (1, 1, 0)
    assert facts["bytes_before"] == facts["bytes_after"]
    run("verify", library_path)
    assert "not in the range" in run("index", "compact", library_path, "--shard-size", "0", status=2)
