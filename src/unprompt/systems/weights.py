"""Where captioners' weights are, and what stands for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from unprompt.captioners.registry import OTHERS, WEIGHTS, packaged
from unprompt.errors import EvaluationError
from unprompt.evaluation.cache import content_key
from unprompt.index.files import sha256_file


def trained_folder(spec: str) -> Path | None:
    """The checkpoint folder of a captioner that was trained here, or comes with the package; None for others."""
    folder = Path(spec).expanduser()
    if (folder / "config.json").is_file():
        return folder
    return WEIGHTS / spec if spec in packaged() else None


@cache
def weights_key(spec: str) -> str:
    """What stands for a captioner's weights: the content of its files. They are not loaded.

    Args:
        spec: as `unprompt.captioners.registry.load_captioner` takes it.

    Raises:
        EvaluationError: there is no such captioner.
        EncoderError: its files would have to be fetched and cannot be.
    """
    folder = trained_folder(spec)
    prefix, _, rest = spec.partition(":")
    if folder is None and prefix in OTHERS and rest:
        folder = _other_folder(prefix, rest)
    if folder is None:
        known = ", ".join([*packaged(), *(f"{prefix}:NAME" for prefix in OTHERS)])
        raise EvaluationError(f"no captioner {spec!r}: give a folder that `unprompt train` wrote, or one of {known}")
    return content_key([[path.name, _content(path)] for path in sorted(folder.iterdir()) if path.is_file()])


def _other_folder(prefix: str, name: str) -> Path:
    from unprompt.captioners import blip
    from unprompt.captioners.ofa import captioner as ofa
    from unprompt.encoders.hub import local_folder, obtain

    local = local_folder(name)
    if local is not None:
        return local
    if prefix == "ofa":
        return obtain(ofa.REPOSITORIES.get(name, name), ofa.FILES, extras=ofa.EXTRAS)
    return obtain(name, blip.FILES, extras=blip.EXTRAS)


def _content(path: Path) -> str:
    """A hub's cache links to files that are named by their content."""
    return path.resolve().name if path.is_symlink() else sha256_file(path)
