from __future__ import annotations

import subprocess
import sys

import pytest

from unprompt.encoders import ENCODERS, load_encoder
from unprompt.encoders.registry import check_device
from unprompt.errors import EncoderError


@pytest.mark.parametrize(
    "name", ["", "start", "starter:", "starter:x", "open_clip", "open_clip:", "clip:ViT-B-32", ":x"]
)
def test_unknown_name_lists_the_known_forms(name: str) -> None:
    with pytest.raises(EncoderError, match=r"use one of starter, open_clip:MODEL/TAG, transformers:") as caught:
        load_encoder(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rest_of_the_name_and_the_device_reach_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    module = type(sys)("one_loader")
    module.load = lambda rest, device: seen.append((rest, device))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "one_loader", module)
    monkeypatch.setitem(ENCODERS, "mine", "one_loader:load")
    load_encoder("mine:a/b:c")
    assert seen == [("a/b:c", "cpu")]


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "gpu", ""])
def test_unknown_device(device: str) -> None:
    with pytest.raises(EncoderError, match="use one of cpu, cuda, cuda:N, mps"):
        load_encoder(device=device)


def test_absent_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_device("cuda")
    check_device("cuda:0")
    with pytest.raises(EncoderError, match=r"'cuda:1' is not available \(1 cuda found\): use --device cpu"):
        check_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match="'cuda' is not available"):
        load_encoder(device="cuda")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, unprompt.encoders; print(*{'torch', 'faiss', 'transformers', 'open_clip'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
