"""Opening a backend by its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unprompt.backends.addresses import parse_address
from unprompt.backends.protocol import Store
from unprompt.backends.remote import PushedLibrary

if TYPE_CHECKING:
    from unprompt.index.library import Library


def open_store(address: str) -> Store:
    """The store at an address; nothing need have been pushed to it.

    Raises:
        LibraryError: the address is none, or the extra for it is not installed.
    """
    parsed = parse_address(address)
    if parsed.kind == "postgresql":
        from unprompt.backends.postgres import PostgresStore

        return PostgresStore(parsed)
    from unprompt.backends.milvus import MilvusStore

    return MilvusStore(parsed)


def open_backend(address: str, vocabulary: Library | None = None) -> PushedLibrary:
    """The pushed library at an address.

    Args:
        address: see `unprompt.backends.addresses`.
        vocabulary: a library on this machine whose vocabulary is taken; None for the one that was pushed.

    Raises:
        LibraryError: as `open_store`; it cannot be reached; no push to it has finished; the two libraries are of
            different encoders.
    """
    return PushedLibrary(open_store(address), vocabulary)
