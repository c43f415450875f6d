"""FAISS, imported when it is needed."""

from __future__ import annotations

from typing import Any

from unprompt.errors import LibraryError


def load_faiss() -> Any:
    """Imports faiss.

    Raises:
        LibraryError: it is not installed; the message names the two extras.
    """
    try:
        import faiss
    except ImportError as error:
        raise LibraryError(
            f"faiss cannot be imported ({error}); install one of: pip install 'unprompt[cpu]' or 'unprompt[gpu]'"
        ) from None
    return faiss


def reason_of(error: Exception) -> str:
    """The cause in a FAISS message such as "Error in ... at file:line: Error: 'x' failed: cause"."""
    return str(error).strip().splitlines()[-1].split("failed: ")[-1].strip() or type(error).__name__
