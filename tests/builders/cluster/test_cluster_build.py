"""A library built on a simulated cluster of two nodes is, byte for byte, the one that this machine builds alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import colour_folder
from unprompt.builders.build import build_library
from unprompt.builders.sources import open_source
from unprompt.encoders import load_encoder
from unprompt.errors import SourceError
from unprompt.types import Encoder, Entry, Picture, Skipped

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds Ray's workers in /proc")

PICTURES = 40
SHARD_SIZE = 8


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("starter")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, one of them twice, one torn, and prompts that several have."""
    root = tmp_path_factory.mktemp("pictures")
    colour_folder(root, PICTURES)
    first = sorted(root.glob("*.png"))[0]
    (root / "again.png").write_bytes(first.read_bytes())
    (root / "again.txt").write_text("another prompt for the same picture")
    (root / "torn.png").write_bytes(first.read_bytes()[:100])
    (root / "torn.txt").write_text("torn")
    return root


@pytest.fixture(scope="module")
def alone(pictures: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    library = tmp_path_factory.mktemp("alone") / "library"
    build(pictures, library, encoder)
    return files_of(library)


def build(pictures: Path, library: Path, encoder: Encoder, runner: Any = None, progress: Any = None) -> Any:
    sources: list[Any] = [open_source(str(pictures)), _prompts()]
    return build_library(
        sources, library, encoder, shard_size=SHARD_SIZE, batch_size=3, workers=0, runner=runner, progress=progress
    )


def _prompts() -> list[Entry | Skipped]:
    return [Entry(f"prompt {i % 15}", metadata={"source": f"list {i // 15}"}) for i in range(30)]


def runner_of(encoder: Encoder, **changes: str) -> Any:
    from unprompt.builders.cluster.runner import ClusterRunner
    from unprompt.builders.cluster.tasks import EncoderSpec

    return ClusterRunner(ray, EncoderSpec(**{"name": encoder.name, "fingerprint": encoder.fingerprint, **changes}))


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("cluster")
def test_the_library_is_the_same(pictures: Path, encoder: Encoder, alone: dict[str, bytes], tmp_path: Path) -> None:
    report = build(pictures, tmp_path / "library", encoder, runner_of(encoder))
    assert (report.pictures, report.prompts, dict(report.skipped)) == (PICTURES + 1, 30, {"unreadable": 1})
    assert files_of(tmp_path / "library") == alone


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_changes_nothing(
    pictures: Path, encoder: Encoder, alone: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int) -> None:
        if not killed:
            killed.extend(_encoding_workers())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    build(pictures, tmp_path / "library", encoder, runner_of(encoder), progress=kill)
    assert killed
    assert files_of(tmp_path / "library") == alone


def test_a_node_that_is_lost_changes_nothing(
    cluster: Any, pictures: Path, encoder: Encoder, alone: dict[str, bytes], tmp_path: Path
) -> None:
    extra = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    runner = runner_of(encoder)
    seen: list[int] = []

    def lose(done: int) -> None:
        seen.append(done)
        if len(seen) == PICTURES // 2:
            cluster.remove_node(extra, allow_graceful=False)

    build(pictures, tmp_path / "library", encoder, runner, progress=lose)
    assert len(seen) > PICTURES // 2
    assert files_of(tmp_path / "library") == alone


@pytest.mark.usefixtures("cluster")
def test_workers_with_other_weights_are_refused(pictures: Path, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a worker has other weights of starter"):
        build(pictures, tmp_path / "library", encoder, runner_of(encoder, fingerprint="0" * 64))
    assert not (tmp_path / "library" / "manifest.json").exists()


def test_a_picture_that_only_the_driver_sees_stops_the_build(encoder: Encoder, tmp_path: Path) -> None:
    from unprompt.builders.cluster.tasks import EncoderSpec, encode_shard

    gone = Entry("gone", picture=Picture(str(tmp_path / "gone.png")))
    with pytest.raises(SourceError, match=r"gone\.png was read before and cannot be now \(.*every worker must see"):
        encode_shard(EncoderSpec(encoder.name, encoder.fingerprint), 2, [(0, 0)], [], [gone])


def test_no_cluster_is_one_line() -> None:
    code = """
from unprompt.builders.cluster.session import ray_cluster
from unprompt.errors import LibraryError
try:
    with ray_cluster("127.0.0.1:1"):
        raise SystemExit("connected")
except LibraryError as error:
    assert "no Ray cluster at 127.0.0.1:1" in str(error) and "ray start --head" in str(error), error
    assert "\\n" not in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def _encoding_workers() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::encode_shard"):
                found.append(int(folder.name))
    return found
