"""A real PostgreSQL server and a real Milvus Lite for the tests, started once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metadata_library import make_records, write_metadata_library
from unprompt.index.library import Library

DIM = 16


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of this session's own; as root it runs as a user of its own, whom it then lets into its folder."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver has no build for this platform or Python release")
    pytest.importorskip("pgvector.psycopg", reason="the extra pgvector is not installed")
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("useradd") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no useradd to make another user")
    folder = Path(tempfile.mkdtemp(prefix="unprompt-postgres-"))
    server = pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def milvus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
    pytest.importorskip("milvus_lite", reason="Milvus Lite has no build for this platform")
    return tmp_path_factory.mktemp("milvus") / "libraries.db"


@pytest.fixture(scope="session", params=["postgresql", "milvus"])
def base_url(request: pytest.FixtureRequest) -> str:
    """A backend's address without the library's name; add one with `named`."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"milvus:{request.getfixturevalue('milvus_file')}"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Four hundred pictures with all kinds of metadata, and a prompt without a picture."""
    root = tmp_path_factory.mktemp("backends") / "library"
    return write_metadata_library(root, make_records(400), DIM, lone_prompts=("a lone prompt",))
