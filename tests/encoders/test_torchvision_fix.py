"""The repair of a torchvision that does not match torch, in processes of its own: it is about a first import."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

BROKEN = """
import torch
torch.ops.torchvision.nms if hasattr(torch.ops.torchvision, "nms") else None
if not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError({message!r})
from torchvision import transforms
"""


def run(code: str, folder: Path | None = None) -> str:
    path = [str(folder)] if folder else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(SOURCE)])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def fake_torchvision(folder: Path, message: str) -> None:
    """A package that breaks as the real one does, and notes each time it is imported."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(f"from torchvision import extension\n{BROKEN.format(message=message)}")
    (package / "extension.py").write_text("print('extension')")
    (package / "transforms.py").write_text("print('transforms')")


FIX = "from unprompt.encoders.torchvision_fix import ensure_torchvision as fix; fix(); fix()"


def test_a_torchvision_without_its_operators_is_repaired(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "operator torchvision::nms does not exist")
    assert run(FIX, tmp_path).split() == ["extension", "extension", "transforms"]


def test_another_failure_is_one_clear_line(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "PyTorch and torchvision\nwere compiled with different CUDA versions")
    code = f"from unprompt.errors import EncoderError\ntry:\n    {FIX}\nexcept EncoderError as error:\n    print(error)"
    *_, line = run(code, tmp_path).splitlines()
    assert line == (
        "torchvision cannot be imported (PyTorch and torchvision were compiled with different CUDA versions): "
        "install the one made for this torch"
    )


def test_a_proper_torchvision_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("print('whole')")
    assert run(f"{FIX}; import sys; print('torch' in sys.modules)", tmp_path).split() == ["whole", "False"]


def test_no_torchvision_is_no_error(tmp_path: Path) -> None:
    assert run(f"import sys; sys.modules['torchvision'] = None; {FIX}") == ""


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: pip install 'unprompt[open-clip]'")
def test_the_installed_torchvision_works_afterwards() -> None:
    code = f"{FIX}; from PIL import Image; from torchvision import transforms as t; "
    code += "print(tuple(t.ToTensor()(t.CenterCrop(5)(t.Resize(8)(Image.new('RGB', (20, 10)))).convert('RGB')).shape))"
    assert run(code) == "(3, 5, 5)"
