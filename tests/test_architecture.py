"""Imports point downward, stay light where they must, and no file is a god file."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import unprompt

ROOT = Path(unprompt.__file__).parent
HEAVY = (
    "torch",
    "faiss",
    "transformers",
    "open_clip",
    "pyarrow",
    "sentence_transformers",
    "pymilvus",
    "psycopg",
    "lark",
)

# A package may import those of lower layers and itself; siblings in one layer do not import each other.
LAYERS = [
    {"cli"},
    {"systems"},
    {"search", "builders", "captioners", "evaluation"},
    {"backends"},
    {"index", "encoders"},
    {"pictures"},
    {"types", "errors"},
]


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path: Path) -> set[str]:
    """The parts of unprompt that a file imports anywhere in it, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            modules.add(node.module)
            if node.module == "unprompt":
                modules |= {f"unprompt.{alias.name}" for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("unprompt.")}


FILES = sorted(
    path for path in ROOT.rglob("*.py") if path.name not in ("__init__.py", "__main__.py") or path.parent != ROOT
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    here = part_of(path)
    for there in imports_of(path):
        assert there == here or layer(there) > layer(here), f"{path.relative_to(ROOT)} imports unprompt.{there}"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_grows_past_its_subject(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_torch_stays_out_of_the_index_but_for_its_gpu_part() -> None:
    files = sorted((ROOT / "index").rglob("*.py"))
    gpu = [path for path in files if path.is_relative_to(ROOT / "index" / "gpu")]
    rest = [path for path in files if path not in gpu]
    for path in rest:
        assert "torch" not in path.read_text(encoding="utf-8"), path
    assert any("import torch" in path.read_text(encoding="utf-8") for path in gpu)  # else there is no exception
    names = [".".join(["unprompt", *path.relative_to(ROOT).with_suffix("").parts]) for path in rest]
    loaded = "[name for name in sys.modules if name.startswith('unprompt.index.gpu')]"
    code = f"import {', '.join(name.removesuffix('.__init__') for name in names)}; assert not {loaded}, {loaded}"
    assert "torch" not in modules_after(code)
    assert "torch" not in modules_after("from unprompt.index.gpu.device import accelerator_for; accelerator_for('cpu')")


def modules_after(code: str) -> set[str]:
    script = f"import sys; {code}; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    "code",
    [
        "import unprompt",
        "import unprompt.cli",
        "import unprompt.encoders",
        "import unprompt.index",
        "import unprompt.backends",
        "import unprompt.builders.sources",
        "import unprompt.search",
        "import unprompt.search.engine",
        "import unprompt.captioners",
        "import unprompt.captioners.ofa",
        "import unprompt.evaluation.metrics",
        "import unprompt.evaluation.run",
        "import unprompt.evaluation.report",
        "import unprompt.systems",
    ],
)
def test_importing_is_light(code: str) -> None:
    assert not modules_after(code) & set(HEAVY)


def test_help_imports_nothing_heavy_and_is_instant() -> None:
    code = (
        "from click.testing import CliRunner; from unprompt.cli import main; r = CliRunner().invoke(main, ['--help'])"
    )
    assert not modules_after(code + "; assert r.exit_code == 0, r.output") & set(HEAVY)
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "unprompt", "--help"], check=True, capture_output=True)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.5


def test_every_public_name_is_there() -> None:
    for name in unprompt.__all__:
        assert getattr(unprompt, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unprompt.nothing


def test_no_pickle_anywhere() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                if names != {"pickle", "UnpicklingError"}:  # naming the error is no use of it
                    assert not names & {"pickle", "dill", "joblib", "cloudpickle", "shelve"}, path
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is (node.arg == "weights_only"), path
