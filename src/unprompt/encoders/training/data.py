"""The pictures that `starter` learns from: four folders with a ``pairs.jsonl`` each, and their split by prompt."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unprompt.errors import SourceError

SETS = ("sd14-artist-grids", "sd15-artists", "sdxl-fashion", "sd1-modifiers")
SPLITS = ("train", "dev", "test")
CELLS = ("tl", "tr", "bl", "br")


@dataclass(frozen=True, slots=True)
class Example:
    """One picture with the prompt that made it.

    Attributes:
        set: the folder it comes from, one of `SETS`.
        path: the picture's file.
        cell: a key of `CELLS` when the picture is a quarter of that file, else "".
        prompt: the whole prompt.
        artist: the artist it names, or "".
        subject: what it shows, such as "dog" or "woman", or "".
        split: one of `SPLITS`, the same for all pictures of a prompt.
        license: as the row states it.
        source: the repository the picture comes from.

    """

    set: str
    path: Path
    cell: str
    prompt: str
    artist: str
    subject: str
    split: str
    license: str
    source: str

    def fragments(self) -> tuple[str, ...]:
        """The pieces of the prompt that describe the picture too: artist, subject, comma pieces; distinct."""
        pieces = [piece.strip() for piece in self.prompt.split(",")]
        return tuple(dict.fromkeys(p for p in (self.artist, self.subject, *pieces) if p and p != self.prompt))

    def open(self) -> Image.Image:
        """Decodes the picture, cut out of its grid where it is a quarter of one."""
        with Image.open(self.path) as file:
            image = file.convert("RGB")
        if not self.cell:
            return image
        width, height = image.width // 2, image.height // 2
        left, top = width * (self.cell[1] == "r"), height * (self.cell[0] == "b")
        return image.crop((left, top, left + width, top + height))


def prompt_group(prompt: str) -> str:
    """Prompts of one group are near duplicates: the same words but for case, accents, punctuation and order.

    Latin letters that are no accented ones ("ø") are passed over; where there are letters of another script, all stay.
    """
    if prompt.isascii():
        return _latin_words(prompt)
    plain = "".join(c for c in unicodedata.normalize("NFKD", prompt) if not unicodedata.combining(c))
    if any(_is_of_another_script(c) for c in plain):
        return " ".join(sorted(re.findall(r"[^\W_]+", plain.casefold())))
    return _latin_words(plain)


def split_of(prompt: str) -> str:
    """The split of a prompt's group, 80 : 10 : 10 by a hash of its Latin words, or of all where it has none of them."""
    group = prompt_group(prompt)
    bucket = int.from_bytes(hashlib.sha256((_latin_words(group) or group).encode()).digest()[:8], "big") % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def _latin_words(text: str) -> str:
    return " ".join(sorted(re.findall(r"[a-z0-9]+", text.encode("ascii", "ignore").decode().lower())))


def _is_of_another_script(c: str) -> bool:
    return c.isalnum() and not c.isascii() and not unicodedata.name(c, "").startswith(("LATIN ", "MODIFIER "))


def load_examples(data: Path) -> list[Example]:
    """Reads all pairs under `data`, in the order of `SETS`, of rows, and of `CELLS` within a grid.

    Raises:
        SourceError: a set or one of its pictures is missing, or a row is not valid.

    """
    examples = [example for name in SETS for example in _load_set(data / name)]
    missing = next((e.path for e in examples if not e.path.is_file()), None)
    if missing is not None:
        raise SourceError(f"picture {missing} is missing: give --data the folder that holds {', '.join(SETS)}")
    return examples


def _load_set(folder: Path) -> list[Example]:
    table = folder / "pairs.jsonl"
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
        return [example for line in lines for example in _row_examples(folder, json.loads(line))]
    except FileNotFoundError:
        raise SourceError(f"no {table}: give --data the folder that holds {', '.join(SETS)}") from None
    except (KeyError, ValueError) as error:
        raise SourceError(f"{table} has a row that is not valid ({error}): every row needs image and prompt") from None


def _row_examples(folder: Path, row: dict[str, Any]) -> list[Example]:
    prompt = str(row["prompt"]).strip()
    artist, subject = _artist_and_subject(row, prompt)
    return [
        Example(
            set=folder.name,
            path=folder / row["image"],
            cell=cell,
            prompt=prompt,
            artist=artist,
            subject=subject,
            split=split_of(prompt),
            license=str(row.get("license", "")),
            source=str(row.get("source", "")).split("@")[0],
        )
        for cell in (CELLS if str(row.get("layout", "")).startswith("2x2 grid") else ("",))
    ]


def _artist_and_subject(row: dict[str, Any], prompt: str) -> tuple[str, str]:
    """Fields where the row has them, else the prompt's own wording ("style of X, woman"; "portrait, by X")."""
    artist, subject = str(row.get("artist", "")), str(row.get("subject", ""))
    if not artist and "modifier" in row and row["modifier"].startswith("by "):
        artist = row["modifier"].removeprefix("by ")
    if not subject and artist:
        subject = prompt.removeprefix(f"style of {artist}").lstrip(", ")
    return artist, subject
