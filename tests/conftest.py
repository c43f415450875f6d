"""Fixtures that several test folders share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# Two threads, set before torch is first imported: more of them fight over the cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from hypothesis import HealthCheck, settings

from fakes import FakeEncoder, colour_folder
from unprompt.builders.build import build_library
from unprompt.types import Entry, Picture

# The same examples every time, and no verdict on how fast the machine happens to be.
settings.register_profile("project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's own cache of embeddings alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNPROMPT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _cache_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """No test finds what another has embedded."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    monkeypatch.setenv("UNPROMPT_CACHE", str(tmp_path_factory.getbasetemp() / "caches" / name))


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Forty colour pictures with their prompts."""
    return [Entry(prompt, Picture(str(path))) for path, prompt in colour_folder(tmp_path / "pictures", 40)]


@pytest.fixture
def library_path(tmp_path: Path, entries: list[Entry], encoder: FakeEncoder) -> Path:
    """A library of the forty pictures in three shards."""
    path = tmp_path / "my.library"
    build_library([entries], path, encoder, shard_size=16, batch_size=8, workers=0)
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads of PyTorch only wait for each other on models as small as some tests make."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub that must not be asked."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
