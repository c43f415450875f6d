"""Announced downloads: files from the Hugging Face hub are taken from its cache, and never fetched silently.

The rule, in order:

1. What the cache (``HF_HOME``) holds is used, and the network is not touched.
2. Where the environment is offline (``HF_HUB_OFFLINE=1``) the rest is refused, at once.
3. Otherwise the repository, the size and the destination are logged as a warning, which Python shows even where
   logging is not set up, and only then the download starts.

Callers load from the folder that `obtain` returns, with ``local_files_only=True``, so that nothing else is fetched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from unprompt.errors import EncoderError

logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Each of these alone makes a tokenizer (vocab.json with its merges.txt)."""

TOKENIZER_EXTRAS = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)

TIMEOUT_S = 10.0
"""How long the hub may take to answer before it counts as unreachable."""

_REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def obtain(repository: str, groups: Sequence[Sequence[str]], extras: Sequence[str] = ()) -> Path:
    """Returns the cached snapshot folder of a hub repository, after an announced download if need be.

    Args:
        repository: "organisation/name".
        groups: alternatives, best first: of every group one file must be there, and the first that is is taken.
        extras: patterns of files that are taken along where the repository has them.

    Raises:
        EncoderError: the name is none, the hub is needed but offline or unreachable, or the repository lacks a group.

    """
    if not _REPOSITORY.fullmatch(repository):
        raise EncoderError(
            f"{repository!r} is neither a folder nor a hub repository: write ORGANISATION/NAME, or a folder"
        )
    folder = _cached(repository)
    if folder is not None and all(_first(group, _names(folder)) for group in groups):
        return folder
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise EncoderError(f"{repository!r} is not in the cache and HF_HUB_OFFLINE is set: {_remedy()}")
    sizes = _listing(repository)
    wanted = _wanted(repository, groups, extras, sizes)
    return _download(repository, wanted, sum(sizes[name] for name in wanted))


def local_folder(name: str) -> Path | None:
    """The absolute path of an existing folder, or None where ``name`` must be a hub repository.

    Raises:
        EncoderError: the name is written as a path (it starts with a slash, a dot or a tilde) and no folder is there.

    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or name.startswith((".", "~")):
        raise EncoderError(f"there is no folder {name!r}: check the path")
    return None


def _cached(repository: str) -> Path | None:
    """The snapshot folder in the cache, complete or not. Never touches the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # Newer releases call a snapshot incomplete although it holds all that is wanted here.
        partial = getattr(error, "snapshot_path", None)
        return Path(partial) if partial else None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.exists())


def _first(group: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in group if name in names), None)


def _listing(repository: str) -> Mapping[str, int]:
    """File name -> bytes, of the files at the repository's top level. The first contact with the hub."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=TIMEOUT_S)
    except _network_errors() as error:
        raise _unreachable(repository, error) from error
    return {file.rfilename: file.size or 0 for file in info.siblings or () if "/" not in file.rfilename}


def _wanted(
    repository: str, groups: Sequence[Sequence[str]], extras: Sequence[str], names: Mapping[str, int]
) -> list[str]:
    wanted = {name for name in names if any(fnmatch(name, pattern) for pattern in extras)}
    for group in groups:
        name = _first(group, list(names))
        if name is None:
            raise EncoderError(
                f"the hub repository {repository!r} has no {' or '.join(group)}: name another repository"
            )
        wanted.add(name)
    return sorted(wanted)


def _download(repository: str, wanted: Sequence[str], size: int) -> Path:
    from huggingface_hub import constants, snapshot_download

    logger.warning(
        "downloading %s (%s) from the Hugging Face hub to %s", repository, _bytes(size), constants.HF_HUB_CACHE
    )
    try:
        return Path(snapshot_download(repository, allow_patterns=list(wanted)))
    except _network_errors() as error:
        raise _unreachable(repository, error) from error


def _network_errors() -> tuple[type[BaseException], ...]:
    """What the hub's client and its transport raise.

    The transport has been requests, httpx and httpx2 in turn; its root error is the base of the client's own.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)


def _unreachable(repository: str, error: BaseException) -> EncoderError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return EncoderError(
            f"{repository!r} asks for an accepted licence: accept it on the hub, then run `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return EncoderError(f"the hub has no repository {repository!r}: check the spelling, or pass a local folder")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return EncoderError(f"{repository!r} is not in the cache and the hub cannot be reached ({reason}): {_remedy()}")


def _remedy() -> str:
    from huggingface_hub import constants

    return f"load it once with network (the cache is HF_HOME={constants.HF_HOME}), or pass a local folder"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size else "size unknown"


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Silences transformers' bars: loading from a disk is quick, and bars belong to the command line."""
    bars: Any = import_module("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
