"""The pictures and true prompts of an evaluation: read, split, sampled, and freed of what the library knows."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from unprompt.errors import EvaluationError
from unprompt.evaluation.leaks import find_leaks, without_leaks
from unprompt.evaluation.splits import (
    group_key,
    split_at_random,
    split_by_artist,
    split_by_near_prompt,
    split_by_prompt,
)
from unprompt.pictures.opening import PictureError, read_bytes
from unprompt.types import Entry, Picture, Skipped

if TYPE_CHECKING:
    from unprompt.index.library import Library

logger = logging.getLogger(__name__)

PARTS = ("train", "dev", "test", "all")
GROUPINGS = ("prompt", "near", "artist", "random")
KEEP = ("none", "prompts", "all")


@dataclass(frozen=True, slots=True)
class Item:
    """One picture and the prompt that made it.

    Attributes:
        picture: where it is.
        prompt: the true prompt.
        source: the collection it comes from, for a breakdown.
        sha256: of its file; "" until it was read.
    """

    picture: Picture
    prompt: str
    source: str = ""
    sha256: str = ""

    @property
    def key(self) -> str:
        """The picture by its content: the sha256 of its file, and the quarter of it."""
        return f"{self.sha256}#{self.picture.cell}" if self.picture.cell else self.sha256

    @property
    def group(self) -> str:
        """What prompts of the same words share."""
        return group_key(self.prompt)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pictures of a source are evaluated.

    Attributes:
        part: one of `PARTS`.
        group_by: one of `GROUPINGS`, by which a source is split into parts; "all" splits nothing.
        limit: the most pictures, drawn by the seed; None for all.
        seed: of the sample, and of a random split.
        keep: which of what the library knows is kept, one of `KEEP`: nothing, pictures whose prompt it has but not they
            themselves, or all.
    """

    part: str = "all"
    group_by: str = "prompt"
    limit: int | None = None
    seed: int = 0
    keep: str = "none"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("part", self.part, PARTS),
            ("grouping", self.group_by, GROUPINGS),
            ("kind of leaks to keep", self.keep, KEEP),
        ):
            if value not in known:
                raise EvaluationError(f"unknown {name} {value!r}: use one of {', '.join(known)}")
        if self.limit is not None and self.limit < 1:
            raise EvaluationError(f"a limit of {self.limit} pictures: use 1 or more")


@dataclass(frozen=True, slots=True)
class Selected:
    """The pictures of an evaluation, in an order that does not depend on their source's.

    Attributes:
        items: them.
        counts: how many pictures there were after each step, by name, in the order of the steps.
        skipped: reason -> how many entries were left out for it.
        leaks: how many were in the library, and which: JSON for a report.
    """

    items: tuple[Item, ...]
    counts: Mapping[str, int]
    skipped: Mapping[str, int]
    leaks: Mapping[str, Any]


def select_items(
    sources: Mapping[str, Iterable[Entry | Skipped]],
    selection: Selection,
    library: Library,
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> Selected:
    """Chooses what is evaluated.

    Prompts that the library holds are left out before a sample is drawn, pictures that it holds after, for only those
    of the sample are read.

    Args:
        sources: by name; entries without pictures, and what a source skipped, are counted.
        selection: see there.
        library: the one that is evaluated.
        progress: called with what is being done, how much of it is, and how much there is.

    Raises:
        EvaluationError: nothing is left.
    """
    skipped: Counter[str] = Counter()
    items = [item for name, entries in sources.items() for item in _items(name, entries, skipped)]
    counts = {"pictures": len(items)}
    if not items:
        raise EvaluationError(f"the split holds no picture with a prompt ({_told(skipped)}): give pairs of both")
    items = _part(items, selection)
    counts["in_part"] = len(items)
    by_prompt = find_leaks(library, [None] * len(items), [item.prompt for item in items])
    leaked = [item for item, bad in zip(items, by_prompt.prompts.tolist(), strict=True) if bad]
    items = without_leaks(items, by_prompt, keep=selection.keep != "none")
    counts["sampled"] = len(items := _sample(items, selection))
    items = _read(items, skipped, progress)
    by_picture = find_leaks(library, [item.sha256 for item in items], [None] * len(items))
    known = {item.picture.uri for item in leaked}
    shown = [item for item, bad in zip(items, by_picture.pictures.tolist(), strict=True) if bad]
    items = without_leaks(items, by_picture, keep=selection.keep == "all")
    counts["evaluated"] = len(items)
    leaks = {
        "kept": selection.keep,
        "by_prompt": len(leaked),
        "by_picture": len(shown),
        "pictures": sorted({*known, *(item.picture.uri for item in shown)}),
    }
    return Selected(tuple(items), counts, dict(sorted(skipped.items())), leaks)


def _items(name: str, entries: Iterable[Entry | Skipped], skipped: Counter[str]) -> Iterable[Item]:
    for entry in entries:
        if isinstance(entry, Skipped):
            skipped[entry.reason] += 1
        elif entry.picture is None:
            skipped["no picture"] += 1
        else:
            # A source often names the very file behind the revision of its collection: owner/name@revision:file.
            source = str(entry.metadata.get("source") or "").partition("@")[0]
            yield Item(entry.picture, entry.prompt, source or name)


def _part(items: list[Item], selection: Selection) -> list[Item]:
    if selection.part == "all":
        return items
    prompts = [item.prompt for item in items]
    split: Callable[[Sequence[str]], list[str]] = {
        "prompt": split_by_prompt,
        "near": split_by_near_prompt,
        "artist": split_by_artist,
        "random": lambda _: split_at_random(_distinct_names(items), selection.seed),
    }[selection.group_by]
    chosen = [item for item, part in zip(items, split(prompts), strict=True) if part == selection.part]
    if not chosen:
        raise EvaluationError(f"none of {len(items)} pictures is in part {selection.part!r}: use another part, or all")
    return chosen


def _sample(items: list[Item], selection: Selection) -> list[Item]:
    """The first by a hash of the seed and the picture's name, so that neither order nor folder decide."""
    if selection.limit is None or selection.limit >= len(items):
        return items
    names = _distinct_names(items)
    order = sorted(range(len(items)), key=lambda i: _digest(f"{selection.seed}\0{names[i]}"))
    return [items[i] for i in order[: selection.limit]]


def _distinct_names(items: Sequence[Item]) -> list[str]:
    """A name for each picture that does not depend on the folder it lies in."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        picture = item.picture
        name = "\0".join([PurePath(picture.path).name, picture.member or "", picture.cell or "", item.prompt])
        names.append(f"{name}\0{seen[name]}")
        seen[name] += 1
    return names


def _read(items: Sequence[Item], skipped: Counter[str], progress: Callable[[str, int, int], object]) -> list[Item]:
    """The items with the hashes of their files, by content; what cannot be read and what is there twice is left out."""
    hashes: dict[Picture, str] = {}
    read: dict[tuple[str, str], Item] = {}
    for number, item in enumerate(items, start=1):
        whole = replace(item.picture, cell=None)
        try:
            if whole not in hashes:
                hashes[whole] = hashlib.sha256(read_bytes(whole)).hexdigest()
        except PictureError as error:
            logger.warning("%s is left out", error)
            skipped[error.reason] += 1
            continue
        item = replace(item, sha256=hashes[whole])
        if (item.key, item.prompt) in read:
            skipped["duplicate"] += 1
        read.setdefault((item.key, item.prompt), item)
        progress("reading", number, len(items))
    if not read:
        raise EvaluationError(f"none of {len(items)} pictures can be read ({_told(skipped)}): check their paths")
    return [read[key] for key in sorted(read)]


def _told(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "it is empty"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
