from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fakes import FakeEncoder, colour_folder, colour_picture
from tiny_library import write_library
from unprompt.cli import main
from unprompt.cli.pictures import find_pictures
from unprompt.cli.settings import split_names
from unprompt.types import Fragment

FRAGMENTS = [
    Fragment("Claude Monet", "artist", "artists.txt"),
    Fragment("oil painting", "medium", "mediums.txt"),
    Fragment("vivid red", "flavor", "flavors.txt"),
    Fragment("vivid green", "flavor", "flavors.txt"),
]
LONG = "a red thing, " + ", ".join(f"detail number {i} of the scene" for i in range(12))

# The command as it runs for a user, but with the encoder of the tests.
PROGRAM = """
import unprompt.search.engine
from fakes import FakeEncoder
unprompt.search.engine.load_encoder = lambda name, device: FakeEncoder()
from unprompt.cli import main
main()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("query")
    pairs = colour_folder(root / "pictures")
    pairs[0] = (pairs[0][0], LONG)
    write_library(root / "library", FakeEncoder(), pairs, {"a red\x1b[31m sea\n\n": 1}, FRAGMENTS)
    return root / "library"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a red and a green picture, a blue one deeper down, and what is none."""
    folder = tmp_path / "in"
    colour_picture(folder / "1-red.png", "red", seed=900)
    colour_picture(folder / "2-GREEN.PNG", "green", seed=901)
    colour_picture(folder / "deep er" / "3-blue.jpg", "blue", seed=902)
    colour_picture(folder / ".hidden.png", "blue")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def run(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    monkeypatch.setattr("unprompt.search.engine.load_encoder", lambda name, device: FakeEncoder())
    monkeypatch.setattr("unprompt.cli.query.captioners_of", lambda *_: [])

    def invoke(*arguments: object, stdin: bytes | None = None) -> Result:
        words = [*map(str, arguments), "--library", str(library)]
        return CliRunner().invoke(main, ["query", *words], input=stdin)

    return invoke


def answers(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, "query", "--captioner", "none", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def test_one_json_line_a_picture_in_order(run: Callable[..., Result], pictures: Path) -> None:
    result = run("--json", "-k", 2, pictures, pictures / "1-red.png")
    assert result.exit_code == 0
    assert result.stderr == ""
    found = answers(result)
    names = ["1-red.png", "2-GREEN.PNG", "deep er/3-blue.jpg", "1-red.png"]
    assert [answer["image"] for answer in found] == [str(pictures / name) for name in names]
    assert found[0] == found[3]
    assert list(found[0]) == ["image", "final", "negative", "prompts", "neighbours", "fragments", "recorded"]
    assert all(len(answer[key]) == 2 for answer in found for key in ("prompts", "neighbours"))
    for answer, colour in zip(found, ["red", "green", "blue", "red"], strict=True):
        assert colour in answer["neighbours"][0]["prompt"]
        assert colour in answer["final"]["prompt"]


def test_batches_do_not_matter(run: Callable[..., Result], pictures: Path) -> None:
    one = answers(run("--json", pictures, "--batch-size", 1))
    many = answers(run("--json", pictures, "--batch-size", 50))
    assert [answer["final"]["prompt"] for answer in one] == [answer["final"]["prompt"] for answer in many]


def test_a_picture_on_standard_input(run: Callable[..., Result], pictures: Path) -> None:
    path = pictures / "1-red.png"
    [piped] = answers(run("--json", "-", stdin=path.read_bytes()))
    [named] = answers(run("--json", path))
    assert piped["image"] == "-"
    assert {**piped, "image": ""} == {**named, "image": ""}


def test_unreadable_pictures_are_warned_of_and_the_others_answered(run: Callable[..., Result], pictures: Path) -> None:
    (pictures / "1-torn.png").write_bytes((pictures / "1-red.png").read_bytes()[:60])
    (pictures / "empty").mkdir()
    result = run("--json", pictures, pictures / "gone.png", pictures / "empty", "-", stdin=b"")
    assert result.exit_code == 1
    assert len(answers(result)) == 3
    warnings = result.stderr.splitlines()
    assert len(warnings) == 4
    assert all(line.startswith("warning: ") for line in warnings)
    for line, words in zip(
        warnings,
        [("1-torn.png", "unreadable"), ("gone.png", "missing"), ("empty", "no pictures"), ("-: unreadable", "empty")],
        strict=True,
    ):
        assert all(word in line for word in words)


def test_only_unreadable_pictures(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run(tmp_path / "gone.png")
    assert (result.exit_code, result.stdout) == (1, "")


def test_kinds(run: Callable[..., Result], pictures: Path) -> None:
    path = pictures / "1-red.png"
    assert list(answers(run("--json", path))[0]["fragments"]) == ["artist", "medium", "flavor"]
    assert list(answers(run("--json", path, "--kinds", "flavor, artist,flavor"))[0]["fragments"]) == [
        "flavor",
        "artist",
    ]
    assert answers(run("--json", path, "--kinds", ""))[0]["fragments"] == {}


def test_a_condition_that_no_picture_meets_is_warned_of_once(run: Callable[..., Result], pictures: Path) -> None:
    found = run("--json", pictures, "--where", "steps > 9000")
    assert found.exit_code == 0
    assert found.stderr.count("no picture meets --where 'steps > 9000'") == 1
    assert all(not answer["neighbours"] for answer in answers(found))
    assert "--where" not in run("--json", pictures, "--where", "steps is null").stderr


def test_split_names() -> None:
    assert split_names(None) is None
    assert split_names("") == ()
    assert split_names(" artist,,flavor , artist") == ("artist", "flavor")


@pytest.mark.parametrize(("options", "words"), [
    (["-k", "0"], ["k is 0"]),
    (["-k", "-1"], ["k is -1"]),
    (["--batch-size", "0"], ["batch size is 0"]),
    (["--kinds", "flavor,colour"], ["'colour'", "artist, medium, flavor"]),
])  # fmt: skip
def test_bad_options_are_refused_before_the_encoder_is_loaded(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, pictures: Path, options: list[str], words: list[str]
) -> None:
    def never(name: str, device: str) -> FakeEncoder:
        raise AssertionError("loaded")

    monkeypatch.setattr("unprompt.search.engine.load_encoder", never)
    assert_one_line_error(run(pictures, *options), *words)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["query", "x.png", "--library", str(tmp_path / "none")])
    assert_one_line_error(result, str(tmp_path / "none"))


def assert_one_line_error(result: Result, *words: str) -> None:
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert all(word in line for word in words)


def test_an_image_and_a_library_must_be_given() -> None:
    assert CliRunner().invoke(main, ["query", "--library", "x"]).exit_code == 2
    assert CliRunner().invoke(main, ["query", "x.png"]).exit_code == 2


def test_the_help_names_all_of_it() -> None:
    text = CliRunner().invoke(main, ["query", "--help"]).output
    for word in ("[IMAGE]...", "--library", "-k", "--json", "--kinds", "--captioner", "--device", "exit status is 1"):
        assert word in " ".join(text.split())


def test_text_for_people(run: Callable[..., Result], pictures: Path) -> None:
    text = PngInfo()
    text.add_text("parameters", "my own words\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 24x24")
    with Image.open(pictures / "1-red.png") as image:
        image.save(pictures / "1-red.png", pnginfo=text)
    result = run(pictures / "1-red.png", "-k", 40)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    headings = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert headings == [
        "recorded in the picture itself",
        "final prompt",
        "prompts (fused ranks; 1 is first in all)",
        "neighbours (cosine)",
        "artist (cosine)",
        "medium (cosine)",
        "flavor (cosine)",
    ]
    assert lines[lines.index("  recorded in the picture itself") + 1].strip() == "my own words"
    assert all(len(line) <= 80 for line in lines[1:])
    assert all(line.isprintable() for line in lines)
    assert "a red [31m sea [prompts]" in result.stdout
    assert LONG in " ".join(result.stdout.split()), "long prompts are wrapped, not cut"
    neighbours = lines[lines.index("  neighbours (cosine)") + 1 : lines.index("  artist (cosine)")]
    dots = {line.index(".") for line in neighbours if line[:6].strip().isdigit()}
    assert len(dots) == 1, "the scores stand below each other"


def test_each_batch_is_printed_when_it_is_done(library: Path, pictures: Path) -> None:
    arguments = ("--json", "--batch-size", 1, pictures / "1-red.png", "-", "--library", library)
    with start(*arguments, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        impatience = threading.Timer(20, process.kill)  # rather than wait for each other for ever
        impatience.start()
        first = json.loads(process.stdout.readline())  # the second picture has not been sent yet
        impatience.cancel()
        output, errors = process.communicate((pictures / "2-GREEN.PNG").read_bytes(), timeout=30)
    assert first["image"].endswith("1-red.png")
    assert json.loads(output)["image"] == "-"
    assert (process.returncode, errors) == (0, b"")


def test_a_closed_pipe_is_no_error(library: Path, pictures: Path) -> None:
    with start(*[pictures] * 20, "--batch-size", 1, "--library", library) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(timeout=30)
    assert errors == b""
    assert process.returncode != 0


def test_pictures_of_a_folder_are_found_by_name(pictures: Path) -> None:
    (pictures / "loop").symlink_to(pictures)
    found = [Path(path).relative_to(pictures).as_posix() for path in find_pictures(str(pictures))]
    assert found == ["1-red.png", "2-GREEN.PNG", "deep er/3-blue.jpg"]
    assert find_pictures(str(pictures / "nowhere")) == []
