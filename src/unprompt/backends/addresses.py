"""Addresses of search backends: ``milvus://host:19530/pictures``, ``milvus:pictures.db``, ``postgresql://host/base``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from unprompt.errors import LibraryError

DEFAULT_NAME = "unprompt"
_SCHEMES = ("milvus", "postgresql", "postgres")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")
_LOCAL_SUFFIX = ".db"


@dataclass(frozen=True)
class Address:
    """A backend's address, taken apart.

    Attributes:
        kind: "milvus" or "postgresql".
        target: what its client connects to: a URI, or the file of Milvus Lite.
        name: the pushed library's name there: a prefix of Milvus collections, a PostgreSQL schema.
        shown: the address without its password, for messages.
        token: Milvus's user and password, "" for none.
    """

    kind: str
    target: str
    name: str
    shown: str
    token: str = ""

    @property
    def local(self) -> bool:
        """Whether it is a file of Milvus Lite."""
        return self.kind == "milvus" and self.target.endswith(_LOCAL_SUFFIX) and "://" not in self.target


def parse_address(address: str) -> Address:
    """Takes an address apart.

    Raises:
        LibraryError: it is none, or its name is no plain one.
    """
    scheme = address.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise LibraryError(
            f"{redact(address)!r} is no backend; use milvus://HOST:PORT/NAME, milvus:FILE.db, "
            "postgresql://HOST/DATABASE?library=NAME, or a library's folder with --library"
        )
    parsed = _milvus(address) if scheme == "milvus" else _postgresql(address)
    if not _NAME.fullmatch(parsed.name):
        raise LibraryError(f"{parsed.name!r} cannot name a library in a backend; use letters, digits and _, at most 48")
    return parsed


def redact(address: str) -> str:
    """The address without its password."""
    hidden = re.sub(r"(//[^:/@?]*):[^@/?]*@", r"\1:***@", address)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", hidden)


def _milvus(address: str) -> Address:
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - {"library", "secure"})
    if unknown:
        raise LibraryError(f"{redact(address)} has the unknown option {unknown[0]!r}; use library or secure")
    if not parts.netloc:
        file = unquote(parts.path)
        if not file.endswith(_LOCAL_SUFFIX):
            raise LibraryError(f"{address} names no host, and a file of Milvus Lite ends in {_LOCAL_SUFFIX}")
        return Address("milvus", file, options.get("library", DEFAULT_NAME), address)
    host, _, name = parts.netloc.rpartition("@")[2], "", parts.path.strip("/")
    secure = options.get("secure", "").lower() in ("1", "true", "yes")
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    target = f"{'https' if secure else 'http'}://{host if ':' in host else host + ':19530'}"
    return Address("milvus", target, name or options.get("library", DEFAULT_NAME), redact(address), user)


def _postgresql(address: str) -> Address:
    base, _, query = address.partition("?")
    options = [option for option in query.split("&") if option]
    names = [unquote(option.partition("=")[2]) for option in options if option.startswith("library=")]
    others = "&".join(option for option in options if not option.startswith("library="))
    target = f"{base}?{others}" if others else base
    return Address("postgresql", target, names[-1] if names else DEFAULT_NAME, redact(address))
