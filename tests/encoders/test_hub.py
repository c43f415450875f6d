"""Announced downloads: what is asked of the hub, when, and what is said. No test touches the network."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unprompt.encoders import hub
from unprompt.errors import EncoderError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="comes with open_clip_torch and transformers")
for module in ("constants", "errors"):
    pytest.importorskip(f"huggingface_hub.{module}")

GROUPS = [("config.json",), ("model.safetensors", "other.safetensors")]
COMMIT = "0" * 40


class FakeHub:
    """The hub as the client sees it: a repository's files with their sizes, and whether it can be reached."""

    def __init__(self, cache: Path, files: dict[str, int]) -> None:
        self.cache = cache
        self.files = files
        self.error: BaseException | None = None
        self.download_error: BaseException | None = None
        self.events: list[str] = []
        self.real_snapshot_download = huggingface_hub.snapshot_download

    def model_info(self, repository: str, *, files_metadata: bool, timeout: float) -> Any:
        self.events.append(f"ask {repository}")
        assert files_metadata
        assert timeout <= 10
        if self.error:
            raise self.error
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        )

    def snapshot_download(self, repository: str, *, local_files_only: bool = False, allow_patterns: Any = None) -> str:
        if local_files_only:
            path: str = self.real_snapshot_download(repository, local_files_only=True)
            return path
        self.events.append(f"download {repository}: {', '.join(allow_patterns)}")
        if self.download_error:
            raise self.download_error
        return str(fill_cache(self.cache, repository, *allow_patterns))


def fill_cache(cache: Path, repository: str, *names: str) -> Path:
    """The layout is the client's own: a reference to a commit, and a snapshot folder of that commit."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).write_text(name)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def fake(cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    files = {"config.json": 1_000, "model.safetensors": 2_499_000, "pytorch_model.bin": 10**12, "vocab.txt": 500_000}
    fake = FakeHub(cache, {**files, "other.safetensors": 10**12, "onnx/config.json": 10**12})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == hub.__name__]


def test_a_download_is_announced_with_its_size(fake: FakeHub, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = hub.obtain("someone/model", GROUPS, extras=("vocab.*", "absent.json"))
    assert said(caplog) == [f"downloading someone/model (3.0 MB) from the Hugging Face hub to {cache}"]
    wanted = "config.json, model.safetensors, vocab.txt"
    assert fake.events == ["ask someone/model", f"download someone/model: {wanted}"]
    assert sorted(path.name for path in folder.iterdir()) == wanted.split(", ")
    assert caplog.records[0].levelno == logging.WARNING, "seen where logging is not set up"


def test_what_the_cache_holds_is_used_and_the_hub_not_asked(
    fake: FakeHub, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill_cache(cache, "someone/model", "config.json", "other.safetensors")
    assert hub.obtain("someone/model", GROUPS) == folder
    assert fake.events == said(caplog) == []


def test_a_cache_that_lacks_a_file_is_completed(fake: FakeHub, cache: Path) -> None:
    fill_cache(cache, "someone/other", "config.json")
    fake.cache = cache / "elsewhere"
    hub.obtain("someone/other", GROUPS)
    assert fake.events[0] == "ask someone/other"


def test_offline_refuses_at_once(fake: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fill_cache(cache, "someone/partial", "config.json")
    for repository in ("someone/model", "someone/partial"):
        with pytest.raises(
            EncoderError, match=f"'{repository}' is not in the cache and HF_HUB_OFFLINE is set: "
        ) as error:
            hub.obtain(repository, GROUPS)
        assert "load it once with network" in str(error.value)
        assert "HF_HOME=" in str(error.value)
        assert "pass a local folder" in str(error.value)
    assert fake.events == []
    folder = fill_cache(cache, "someone/whole", "config.json", "model.safetensors")
    assert hub.obtain("someone/whole", GROUPS) == folder


def transport_error() -> BaseException:
    """What the client's transport raises: in newer releases no OSError."""
    root: type[BaseException] = huggingface_hub.errors.HfHubHTTPError.__bases__[0]
    return root("name resolution failed")


@pytest.mark.parametrize("phase", ["error", "download_error"])
@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), TimeoutError(), transport_error()], ids=repr)
def test_a_hub_that_cannot_be_reached(
    fake: FakeHub, phase: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(fake, phase, error)
    with pytest.raises(EncoderError, match="'someone/model' is not in the cache and the hub cannot be reached") as got:
        hub.obtain("someone/model", GROUPS)
    assert "\n" not in str(got.value)
    assert "HF_HOME=" in str(got.value)
    assert len(said(caplog)) == (phase == "download_error"), "nothing is announced before the hub has answered"


def test_a_repository_that_is_not_there_or_gated(fake: FakeHub) -> None:
    errors = huggingface_hub.errors
    for kind, message in (
        (errors.RepositoryNotFoundError, "the hub has no repository 'someone/model'"),
        (errors.GatedRepoError, "'someone/model' asks for an accepted licence"),
    ):
        fake.error = kind.__new__(kind)
        with pytest.raises(EncoderError, match=message):
            hub.obtain("someone/model", GROUPS)


def test_a_repository_that_lacks_what_is_needed(fake: FakeHub) -> None:
    del fake.files["model.safetensors"], fake.files["other.safetensors"]
    with pytest.raises(EncoderError, match=r"'someone/model' has no model\.safetensors or other\.safetensors"):
        hub.obtain("someone/model", GROUPS)
    assert fake.events == ["ask someone/model"]


@pytest.mark.parametrize("name", ["", "a b/c", "../up", "a/b/c", "https://host/x", "a/../b"])
def test_names_that_are_none(fake: FakeHub, name: str) -> None:
    with pytest.raises(EncoderError, match="neither a folder nor a hub repository"):
        hub.obtain(name, GROUPS)
    assert fake.events == []


def test_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert hub.local_folder("model") == hub.local_folder("./model") == tmp_path / "model"
    assert hub.local_folder("someone/model") is None
    for name in ("./nowhere", "/no/where", "~/no-such-folder-here"):
        with pytest.raises(EncoderError, match="there is no folder"):
            hub.local_folder(name)
