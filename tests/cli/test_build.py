"""The commands that make and change libraries, on the fake encoder: real files, no weights."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, colour_folder, colour_picture
from unprompt.cli import main
from unprompt.index.library import Library


@pytest.fixture(autouse=True)
def fake_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unprompt.encoders.load_encoder", lambda name="fake", device="cpu": FakeEncoder())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    colour_folder(tmp_path / "pictures", 12)
    return tmp_path / "pictures"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def build(pictures: Path, library: Path, *options: object) -> Result:
    return run("build", pictures, "--library", library, "--workers", 0, *options)


def test_build_reports_what_it_did(pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    (pictures / "broken.txt").write_text("a prompt")
    result = build(pictures, tmp_path / "l")
    assert f"{pictures}: folder" in result.stderr
    assert "12 added" in result.stdout
    assert "skipped   1 unreadable" in result.stdout
    assert "recall@10 1.000 against exact search" in result.stdout
    assert "12 were there already" in build(pictures, tmp_path / "l").stdout


def test_build_json_is_one_object(pictures: Path, tmp_path: Path) -> None:
    report = json.loads(build(pictures, tmp_path / "l", "--json").stdout)
    assert report["pictures"] == 12
    assert report["totals"] == {"pictures": 12, "prompts": 12, "fragments": 0}


def test_add_and_remove_change_a_library_without_rebuilding_it(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "l")
    more = tmp_path / "more"
    colour_picture(more / "new.PNG", "red", seed=50)
    (more / "new.txt").write_text("something new")
    assert "1 added" in run("add", tmp_path / "l", more, "--workers", 0).stdout
    assert len(Library.open(tmp_path / "l")) == 13
    assert "1 rows removed" in run("remove", tmp_path / "l", more / "new.PNG").stdout
    assert "1 rows removed" in run("remove", tmp_path / "l", "--prompt", "a red thing, oil painting").stdout
    library = Library.open(tmp_path / "l")
    assert (len(library), library.verify()) == (11, [])


def test_add_needs_a_library(pictures: Path, tmp_path: Path) -> None:
    result = run("add", tmp_path / "nowhere", pictures, code=1)
    assert result.stderr == (
        f"Error: there is no library at {tmp_path / 'nowhere'}; make one with: "
        f"unprompt build SOURCE --library {tmp_path / 'nowhere'}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere", "--library", "l"], "nowhere: no such file or folder"),
        (["info", "nowhere"], "there is no library at nowhere"),
        (["verify", "nowhere"], "there is no library at nowhere"),
        (["remove", "nowhere", "x"], "there is no library at nowhere"),
        (["vocabulary", "list", "--library", "nowhere"], "there is no library at nowhere"),
        (["vocabulary", "add", "x.txt", "--library", "nowhere"], "there is no library at nowhere"),
    ],
)
def test_what_is_missing_is_one_line_and_makes_no_folder(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, code=1)
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_vocabulary_goes_in_out_and_in_again(pictures: Path, tmp_path: Path) -> None:
    library = tmp_path / "l"
    build(pictures, library)
    (tmp_path / "artists.txt").write_text("A. Painter\n\nB. Painter\nA. Painter\n", encoding="utf-8")
    (tmp_path / "mine.csv").write_text("text,kind,count\nred,colour,7\nblue,colour,\n", encoding="utf-8")
    added = run("vocabulary", "add", tmp_path / "artists.txt", tmp_path / "mine.csv", "--library", library)
    assert "4 fragments read, 4 added, 6 new texts encoded, 4 in" in added.stdout
    again = run("vocabulary", "add", tmp_path / "mine.csv", "--library", library)
    assert "2 fragments read, 0 added, 0 new texts encoded, 4 in" in again.stdout
    listed = run("vocabulary", "list", "--library", library, "--kind", "colour").stdout
    assert listed == "colour\tred\t7\ncolour\tblue\t0\n"
    run("vocabulary", "export", tmp_path / "all.csv", "--library", library)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert [row["text"] for row in rows] == ["A. Painter", "B. Painter", "red", "blue"]
    assert "1 fragments removed" in run("vocabulary", "remove", "red", "--library", library).stdout
    assert "2 fragments removed" in run("vocabulary", "remove", "--kind", "artist", "--library", library).stdout
    back = run("vocabulary", "add", tmp_path / "all.csv", "--library", library)
    assert "4 fragments read, 0 added, 3 restored, 0 new texts encoded, 4 in" in back.stdout
    assert run("verify", library).stdout.startswith(f"{library} is sound")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("terms.txt", "a\n", [], "does not say what its terms are; give --kind"),
        ("terms.csv", "word,kind\na,b\n", [], "has no column 'text'"),
        ("terms.csv", "text\na\n", [], "line 2 has no kind"),
        ("terms.csv", "text,kind,count\na,b,many\n", [], "line 2 has count 'many'"),
        ("artists.txt", "\xff\xfe", ["latin-1"], "not utf-8 text"),
    ],
)
def test_a_bad_list_is_one_line(
    pictures: Path, tmp_path: Path, name: str, content: str, options: list[str], message: str
) -> None:
    build(pictures, tmp_path / "l")
    (tmp_path / name).write_bytes(content.encode(*options))
    result = run("vocabulary", "add", tmp_path / name, "--library", tmp_path / "l", code=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_info_describes_and_verify_finds_faults(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "l")
    assert "12 rows, Flat" in run("info", tmp_path / "l").stdout
    facts = json.loads(run("info", tmp_path / "l", "--json").stdout)
    assert (facts["encoder"], facts["dim"], facts["counts"]["pictures"]) == ("fake", 32, 12)
    path = tmp_path / "l" / "img_emb" / "img_emb_0000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    result = run("verify", tmp_path / "l", code=1)
    assert "img_emb/img_emb_0000.npy: its sha256 is not the manifest's" in result.output


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(pictures: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = run("build", pictures, "--library", locked / "l", "--workers", 0, code=1)
    assert result.stderr.splitlines()[-1].endswith("Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "l")
    result = run("vocabulary", "export", "/dev/full/x.csv", "--library", tmp_path / "l", code=1)
    assert result.stderr.count("\n") == 1


def test_the_index_can_be_chosen_and_a_wrong_one_is_one_line(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "hnsw", "--index", "HNSW8")
    assert Library.open(tmp_path / "hnsw").manifest.indexes["image"].factory == "HNSW8"
    result = run("build", pictures, "--library", tmp_path / "l", "--workers", 0, "--index", "Flatt", code=1)
    assert "index 'Flatt' cannot be made" in result.stderr
    build(pictures, tmp_path / "l")  # what was encoded is kept, and the mistake mended
    assert Library.open(tmp_path / "l").verify() == []


def test_clip_interrogator_lists_are_found_without_importing_the_package(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "clip_interrogator"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "artists.txt").write_text("A. Painter\n")
    (package / "data" / "flavors.txt").write_text("soft light\n\nsoft light\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    build(pictures, tmp_path / "l")
    run("vocabulary", "add", "clip-interrogator", "--library", tmp_path / "l")
    vocabulary = Library.open(tmp_path / "l").vocabulary
    assert vocabulary.counts() == {"artist": 1, "flavor": 1, "trending": 72}
    assert vocabulary.terms[:2] == ["by A. Painter", "inspired by A. Painter"]
    assert "clip_interrogator" not in sys.modules


def test_an_unfinished_library_says_so(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "l")
    (tmp_path / "l" / "manifest.json").unlink()
    assert "did not finish; run the same build command again" in run("info", tmp_path / "l", code=1).stderr
    assert "12 taken over" in build(pictures, tmp_path / "l").stdout
    assert Library.open(tmp_path / "l").verify() == []


def test_a_moved_library_still_opens(pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "l")
    shutil.move(tmp_path / "l", tmp_path / "elsewhere")
    assert "is sound" in run("verify", tmp_path / "elsewhere").stdout
