"""``--search-device``: where a library's indexes are searched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_picture
from unprompt.cli import main
from unprompt.index.gpu.device import faiss_gpu_count
from unprompt.index.gpu.search import torch_exact
from unprompt.index.rebuild import rebuild_library
from unprompt.index.training import Blocks
from unprompt.index.vector_index import VectorIndex


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def query(library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Asks with one picture; gives the answer."""
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: FakeEncoder())
    monkeypatch.setattr("unprompt.cli.query.captioners_of", lambda *_: [])
    picture = colour_picture(tmp_path / "asked.png", "red", seed=77)

    def invoke(*arguments: object) -> dict[str, Any]:
        result = run("query", picture, "--library", library_path, "--json", *arguments)
        assert result.exit_code == 0, result.output
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    return invoke


@pytest.fixture
def torch_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """PyTorch has two GPUs and FAISS none, but vectors stay on the CPU. Gives the devices that an index was put on."""
    placed: list[str] = []

    def place(blocks: Blocks, dim: int, device: str) -> VectorIndex:
        placed.append(device)
        return torch_exact(blocks, dim, "cpu")

    monkeypatch.setattr("unprompt.index.gpu.device.faiss_gpu_count", lambda: 0)
    monkeypatch.setattr("unprompt.index.gpu.device._torch_gpu_count", lambda: 2)
    monkeypatch.setattr("unprompt.index.gpu.search.torch_exact", place)
    return placed


@pytest.mark.parametrize("where", [[], ["--where", "width >= 1 or width is null"]])
@pytest.mark.parametrize("index", ["Flat", "IVF4,SQfp16"])
def test_a_gpu_answers_as_the_processor_does(
    query: Callable[..., Any], torch_gpu: list[str], library_path: Path, index: str, where: list[str]
) -> None:
    rebuild_library(library_path, index)
    here, there = query(*where), query(*where, "--search-device", "cuda:1")
    assert torch_gpu == ["cuda:1", "cuda:1"]
    assert there["final"]["prompt"] == here["final"]["prompt"]
    for name in ("prompts", "neighbours"):
        assert [each["prompt"] for each in there[name]] == [each["prompt"] for each in here[name]]
        scores = [[each["score"] for each in answer[name]] for answer in (here, there)]
        assert scores[1] == pytest.approx(scores[0], abs=2e-3)  # one of them may hold half precision


def test_evaluating_searches_there_too(
    library_path: Path, tmp_path: Path, torch_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unprompt.systems.workshop.load_encoder", lambda name, device: FakeEncoder())
    (tmp_path / "new").mkdir()
    for number in range(3):
        colour_picture(tmp_path / "new" / f"{number}.png", "red", seed=70 + number)
        (tmp_path / "new" / f"{number}.txt").write_text(f"a scarlet ball, number {number}")
    asked = ["--library", library_path, "--split", tmp_path / "new", "--systems", "rrf", "--metrics", "rouge-l"]
    for name, more in (("cpu", []), ("gpu", ["--search-device", "cuda"])):
        result = run("evaluate", *asked, "--resamples", 20, "--out", tmp_path / name, *more)
        assert result.exit_code == 0, result.output
        assert torch_gpu == (["cuda:0", "cuda:0"] if more else [])  # answers of the processor are not taken for its own
    first, second = ((tmp_path / name / "answers.jsonl").read_text() for name in ("cpu", "gpu"))
    assert first == second


@pytest.mark.parametrize("command", ["query", "evaluate", "embed"])
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "device 'cuda' is not available (FAISS sees 0 GPUs, PyTorch sees 0): use --search-device cpu, or"),
        ("mps", "search device 'mps' is unknown: use --search-device cpu, cuda or cuda:1"),
        ("cuda:one", "search device 'cuda:one' is unknown"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(
    command: str, device: str, message: str, library_path: Path, tmp_path: Path
) -> None:
    if device == "cuda" and _has_gpu():
        pytest.skip("there is a GPU here")
    (tmp_path / "words.txt").write_text("a scarlet ball\n")
    split = ["--split", tmp_path / "words.txt", "--systems", "rrf", "--out", tmp_path / "out"]
    colour_picture(tmp_path / "red.png", "red", seed=1)
    more = {
        "query": ["--text", "words"],
        "evaluate": split,
        "embed": [tmp_path / "red.png", "--from", "neighbours", "--out", tmp_path / "out.csv"],
    }[command]
    result = run(command, "--library", library_path, "--search-device", device, *more)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_database_searches_where_it_runs() -> None:
    result = run("query", "--text", "words", "--backend", "milvus://x", "--search-device", "cuda")
    assert result.exit_code == 2
    assert "--search-device is for a --library" in result.stderr


def test_a_head_searches_nothing(tmp_path: Path) -> None:
    colour_picture(tmp_path / "red.png", "red", seed=1)
    result = run("embed", tmp_path / "red.png", "--from", "head", "--out", tmp_path / "out", "--search-device", "cuda")
    assert result.exit_code == 2
    assert "--search-device is for a --library" in result.stderr


def _has_gpu() -> bool:
    import torch

    return bool(faiss_gpu_count() or torch.cuda.is_available())
