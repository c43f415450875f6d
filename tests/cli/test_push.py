from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fakes import FakeEncoder, colour_picture
from metadata_library import named
from unprompt.builders.build import build_library
from unprompt.builders.vocabulary import add_fragments
from unprompt.cli import main
from unprompt.types import Entry, Fragment, Picture


@pytest.fixture
def root(tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of red and blue pictures, of which every second one took thirty steps."""
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device="cpu": encoder)
    entries = []
    for i in range(12):
        colour = ("red", "blue")[i % 2]
        path = colour_picture(tmp_path / "pictures" / f"{i}.png", colour, seed=i)
        entries.append(Entry(f"a {colour} thing number {i}", Picture(str(path)), {"steps": 30 if i % 4 < 2 else 20}))
    build_library([entries], tmp_path / "library", encoder, workers=0)
    add_fragments(tmp_path / "library", [Fragment("oil on canvas", "medium")], encoder)
    return tmp_path / "library"


@pytest.fixture
def address(tmp_path: Path) -> str:
    pytest.importorskip("milvus_lite", reason="Milvus Lite has no build for this platform")
    return named(f"milvus:{tmp_path / 'pushed.db'}", "colours")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_pushed_library_answers_without_its_folder(root: Path, address: str, tmp_path: Path) -> None:
    picture = colour_picture(tmp_path / "query.png", "red", seed=99)
    query = ("query", picture, "--json", "-k", 4, "--where", "steps = 30")
    here = run(*query, "--library", root)
    assert here.exit_code == 0, here.output
    pushed = run("push", root, "--to", address, "--index", "flat")
    assert pushed.exit_code == 0, pushed.output
    assert "12 pictures: 12 written, 0 were there" in pushed.output
    assert "--backend" in pushed.output
    shutil.rmtree(root)
    there = run(*query, "--backend", address)
    assert there.exit_code == 0, there.output
    expected, found = json.loads(here.stdout), json.loads(there.stdout)
    nearest = [int(n["prompt"].rsplit(" ", 1)[1]) for n in expected["neighbours"]]
    assert sorted(nearest[:3]) == [0, 4, 8]  # the red ones of thirty steps
    assert nearest[3] in (1, 5, 9)
    assert [n["id"] for n in found["neighbours"]] == [n["id"] for n in expected["neighbours"]]
    assert found["final"]["prompt"] == expected["final"]["prompt"]
    assert [p["prompt"] for p in found["prompts"]] == [p["prompt"] for p in expected["prompts"]]
    assert found["fragments"] == expected["fragments"]


def test_a_condition_keeps_other_pictures_out(root: Path, tmp_path: Path) -> None:
    picture = Image.open(tmp_path / "pictures" / "2.png")  # held by the library, but of twenty steps
    picture.save(tmp_path / "again.png")
    answer = run("query", tmp_path / "again.png", "--json", "-k", 12, "--library", root, "--where", "steps = 30")
    found = json.loads(answer.stdout)
    numbers = {int(each["prompt"].rsplit(" ", 1)[1]) for each in found["neighbours"]}
    assert numbers == {0, 1, 4, 5, 8, 9}
    assert {int(each["prompt"].rsplit(" ", 1)[1]) for each in found["prompts"]} == numbers


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--where", "steps >> 3"), "at column 8"),
        (("--where", "sampel = 'x'"), "did you mean sampler"),
        (("--backend", "milvus:nothing.sqlite"), "ends in .db"),
        ((), "give a --library, or a --backend"),
    ],
)
def test_mistakes_are_one_line(root: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    library = ("--library", root) if "--where" in arguments else ()
    result = run("query", tmp_path / "pictures" / "0.png", *library, *arguments)
    assert result.exit_code != 0
    assert says in result.output
    assert "Traceback" not in result.output


def test_a_library_of_another_encoder_cannot_lend_its_vocabulary(root: Path, address: str, tmp_path: Path) -> None:
    assert run("push", root, "--to", address).exit_code == 0
    other = FakeEncoder(salt="-other")
    path = colour_picture(tmp_path / "one.png", "green")
    build_library([[Entry("a green thing", Picture(str(path)))]], tmp_path / "other", other, workers=0)
    result = run("query", path, "--backend", address, "--library", tmp_path / "other")
    assert result.exit_code == 1
    assert "different encoders" in result.output
    same = run("query", path, "--backend", address, "--library", root, "--format", "txt")
    assert same.exit_code == 0, same.output


def test_push_wants_an_address_and_a_known_index(root: Path, address: str) -> None:
    assert "is no backend" in run("push", root, "--to", "redis://x").output
    assert "unknown index 'lsh'" in run("push", root, "--to", address, "--index", "lsh").output
