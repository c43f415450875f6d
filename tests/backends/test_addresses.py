from __future__ import annotations

from pathlib import Path

import pytest

from unprompt.backends.addresses import Address, parse_address
from unprompt.backends.opening import open_backend, open_store
from unprompt.errors import LibraryError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("milvus://db:19530/art", Address("milvus", "http://db:19530", "art", "milvus://db:19530/art")),
        ("milvus://db", Address("milvus", "http://db:19530", "unprompt", "milvus://db")),
        (
            "milvus://ann:s%40fe@db:443/art?secure=true",
            Address("milvus", "https://db:443", "art", "milvus://ann:***@db:443/art?secure=true", "ann:s@fe"),
        ),
        ("milvus:some/art.db", Address("milvus", "some/art.db", "unprompt", "milvus:some/art.db")),
        ("milvus:///a/art.db?library=x", Address("milvus", "/a/art.db", "x", "milvus:///a/art.db?library=x")),
        (
            "postgresql://ann@db/art",
            Address("postgresql", "postgresql://ann@db/art", "unprompt", "postgresql://ann@db/art"),
        ),
        (
            "postgres://ann:safe@db/art?sslmode=require&library=x&host=/run",
            Address(
                "postgresql",
                "postgres://ann:safe@db/art?sslmode=require&host=/run",
                "x",
                "postgres://ann:***@db/art?sslmode=require&library=x&host=/run",
            ),
        ),
    ],
)
def test_addresses_are_taken_apart_and_hide_their_password(address: str, expected: Address) -> None:
    assert parse_address(address) == expected
    assert parse_address(address).local == address.startswith("milvus:") * ("art.db" in address)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis://host", "is no backend; use milvus://"),
        ("mysql://u:secret@host/x", r"'mysql://u:\*\*\*@host/x' is no backend"),
        ("some/folder", "is no backend"),
        ("milvus:art.sqlite", "ends in .db"),
        ("milvus://db/a-b", "'a-b' cannot name a library"),
        ("postgresql://db/x?library=a%22%3Bdrop", "cannot name a library"),
        ("milvus://db/x?colection=y", "unknown option 'colection'"),
    ],
)
def test_what_is_no_address_is_one_line(address: str, says: str) -> None:
    with pytest.raises(LibraryError, match=says) as error:
        parse_address(address)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_server_that_does_not_answer_is_one_line() -> None:
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    with pytest.raises(LibraryError, match=r"ann:\*\*\*@127.0.0.1:9/x") as error:
        open_backend("postgresql://ann:secret@127.0.0.1:9/x?connect_timeout=2")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_milvus_that_does_not_answer_is_one_line() -> None:
    pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
    with pytest.raises(LibraryError, match=r"milvus://127\.0\.0\.1:9/x") as error:
        open_backend("milvus://127.0.0.1:9/x")
    assert "\n" not in str(error.value)


def test_a_file_in_no_folder_is_one_line() -> None:
    pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
    with pytest.raises(LibraryError, match="there is no folder /nowhere/at all"):
        open_store("milvus:///nowhere/at%20all/x.db").read_file("facts")


def test_milvus_lite_is_an_extra_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymilvus", reason="the extra milvus is not installed")
    monkeypatch.setattr("unprompt.backends.milvus_writing.find_spec", lambda name: None)
    with pytest.raises(LibraryError, match=r"pip install 'unprompt\[milvus-lite\]'"):
        open_backend(f"milvus:{tmp_path / 'x.db'}")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, address, extra in (
        ("psycopg", "postgresql://db/x", "pgvector"),
        ("pymilvus", "milvus://db", "milvus"),
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(LibraryError, match=rf"pip install 'unprompt\[{extra}\]'"):
            open_store(address)
