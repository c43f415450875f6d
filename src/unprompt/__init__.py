"""unprompt: which prompt made this picture?

    from unprompt import Engine, Library

    engine = Engine(Library.open("my.library"))
    for result in engine.query(["photo.png"], k=5):
        print(result.final.prompt)

Importing this package imports neither torch nor faiss; a name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unprompt.builders.build import build_library
    from unprompt.builders.fragments import read_fragments
    from unprompt.builders.sources import open_source
    from unprompt.builders.vocabulary import add_fragments
    from unprompt.encoders import load_encoder
    from unprompt.errors import UnpromptError
    from unprompt.index.library import Library
    from unprompt.index.remove import remove_rows
    from unprompt.search.engine import Engine
    from unprompt.types import Candidate, Fragment, Hit, Record

__version__ = "0.1.0"

_HOMES = {
    "Candidate": "unprompt.types",
    "Engine": "unprompt.search.engine",
    "Fragment": "unprompt.types",
    "Hit": "unprompt.types",
    "Library": "unprompt.index.library",
    "Record": "unprompt.types",
    "UnpromptError": "unprompt.errors",
    "add_fragments": "unprompt.builders.vocabulary",
    "build_library": "unprompt.builders.build",
    "load_encoder": "unprompt.encoders",
    "open_source": "unprompt.builders.sources",
    "read_fragments": "unprompt.builders.fragments",
    "remove_rows": "unprompt.index.remove",
}

__all__ = [
    "Candidate",
    "Engine",
    "Fragment",
    "Hit",
    "Library",
    "Record",
    "UnpromptError",
    "add_fragments",
    "build_library",
    "load_encoder",
    "open_source",
    "read_fragments",
    "remove_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unprompt' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
