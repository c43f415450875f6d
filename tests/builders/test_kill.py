"""A build is killed with SIGKILL at random moments; the same command then resumes to the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes import FakeEncoder, colour_folder
from unprompt.builders.build import build_library
from unprompt.errors import LibraryError
from unprompt.index.library import Library
from unprompt.index.writer import LibraryWriter

sys.path.insert(0, str(Path(__file__).parent))
from slow_build import BATCH_SIZE, SHARD_SIZE, read_entries

SCRIPT = Path(__file__).with_name("slow_build.py")
MOMENTS = 20
PICTURES = 160

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")


def start(pictures: Path, library: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(pictures), str(library), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def finish(pictures: Path, library: Path) -> int:
    """Runs the same build to its end in this process; returns how many pictures it had to encode."""
    encoder = FakeEncoder()
    entries = read_entries(pictures)
    build_library([entries], library, encoder, shard_size=SHARD_SIZE, batch_size=BATCH_SIZE, workers=0)
    return encoder.images_encoded


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    colour_folder(pictures, PICTURES)
    finish(pictures, tmp_path / "once")
    expected = files_of(tmp_path / "once")

    process = start(pictures, tmp_path / "timed", workers=1)
    started = time.monotonic()
    assert process.wait(timeout=60) == 0
    duration = time.monotonic() - started

    chance = random.Random(20)
    encoded_again = []
    for moment in range(MOMENTS):
        library = tmp_path / f"killed-{moment}"
        process = start(pictures, library, workers=1)
        time.sleep(chance.uniform(0, duration))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        whole = len(list((library / "metadata").glob("*.parquet"))) if library.exists() else 0
        encoded_again.append(finish(pictures, library))
        assert encoded_again[-1] == PICTURES - whole * SHARD_SIZE  # every shard that was whole is kept
        assert files_of(library) == expected
        assert Library.open(library).verify() == []
    assert any(0 < count < PICTURES for count in encoded_again), "no kill came in the middle of a build"


def test_the_lock_holds_while_a_build_runs_and_dies_with_it(tmp_path: Path) -> None:
    pictures, library = tmp_path / "pictures", tmp_path / "my.library"
    colour_folder(pictures, PICTURES)
    process = start(pictures, library, workers=1)
    deadline = time.monotonic() + 30
    while not (library / "metadata").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(LibraryError, match="being written by another process"):
        finish(pictures, library)
    process.kill()
    process.wait(timeout=10)
    with LibraryWriter(library, None) if (library / "manifest.json").exists() else _writer(library):
        pass  # taken at once: the dead process holds nothing


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to list child processes")
def test_worker_processes_die_with_the_build(tmp_path: Path) -> None:
    pictures, library = tmp_path / "pictures", tmp_path / "my.library"
    colour_folder(pictures, PICTURES)
    process = start(pictures, library, workers=2)
    deadline = time.monotonic() + 30
    while not (library / "metadata").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    family = descendants(process.pid)
    assert len(family) >= 2
    process.kill()
    process.wait(timeout=10)
    deadline = time.monotonic() + 10
    while (left := [pid for pid in family if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def descendants(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _writer(library: Path) -> LibraryWriter:
    from unprompt.builders.build import encoder_info

    return LibraryWriter(library, encoder_info(FakeEncoder()))


def test_an_import_that_is_killed_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    from slow_import import SHARD_SIZE as IMPORT_SHARD_SIZE

    from unprompt.builders.export import export_library
    from unprompt.builders.sources import open_source

    colour_folder(tmp_path / "pictures", PICTURES)
    finish(tmp_path / "pictures", tmp_path / "made")
    export_library(Library.open(tmp_path / "made"), tmp_path / "given", "npy")

    def resume(library: Path) -> int:
        source = open_source(str(tmp_path / "given"))
        report = build_library([source], library, FakeEncoder(), shard_size=IMPORT_SHARD_SIZE, workers=0)
        return report.resumed

    resume(tmp_path / "once")
    command = [
        sys.executable,
        str(SCRIPT.with_name("slow_import.py")),
        str(tmp_path / "given"),
        str(tmp_path / "killed"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "killed/metadata/metadata_0002.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    assert 3 * IMPORT_SHARD_SIZE <= resume(tmp_path / "killed") < PICTURES
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "once")
