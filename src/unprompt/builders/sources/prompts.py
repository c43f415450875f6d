"""Format "prompts": prompts alone, without pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from unprompt.builders.sources.common import BAD_ROW, FILTER_PROMPT_NSFW, NO_PROMPT, clean_metadata, clean_prompt
from unprompt.builders.sources.options import SourceOptions
from unprompt.builders.sources.tables import PROMPT_COLUMNS, find_column, is_table, read_columns, read_lines, read_rows
from unprompt.errors import SourceError
from unprompt.types import Entry, Skipped


class PromptsSource:
    """A .txt file (one prompt a line) or a table with a prompt column; each distinct prompt comes once, with its count.

    The file is read twice: the first pass counts 8-byte hashes, so that two million prompts need some 200 MB and not
    gigabytes, and the second yields in order of first appearance. Two prompts with one hash would pass for one; among
    two million that has a chance of 1e-7.
    """

    format = "prompts"

    def __init__(self, path: str, options: SourceOptions) -> None:
        self.path = Path(path)
        self._prompt: str | None = None
        self._nsfw_limit = options.diffusion_filters.prompt_nsfw
        if self.path.is_dir():
            raise SourceError(f"{path} is a folder; --format prompts takes a .txt, .csv, .tsv, .jsonl or .parquet file")
        if not is_table(self.path):
            return
        columns = read_columns(self.path)
        self._prompt = find_column(columns, options.prompt_column, PROMPT_COLUMNS)
        if self._prompt is None and self.path.suffix.lower() in (".csv", ".tsv") and len(columns) == 1:
            raise SourceError(f"{path}: no header line that names a prompt column; add one, or call the file .txt")
        if self._prompt is None:
            asked = f"column {options.prompt_column!r}" if options.prompt_column else "prompt column"
            raise SourceError(f"{path}: no {asked} among {', '.join(columns[:12])}; name one with --prompt-column")
        self._columns = columns

    def __iter__(self) -> Iterator[Entry | Skipped]:
        counts: dict[int, int] = {}
        for item in self._read():
            if isinstance(item, Entry):
                key = _hash(item.prompt)
                counts[key] = counts.get(key, 0) + 1
        for item in self._read():
            if isinstance(item, Skipped):
                yield item
            elif count := counts.pop(_hash(item.prompt), 0):
                yield replace(item, count=count)

    def _read(self) -> Iterator[Entry | Skipped]:
        if self._prompt is None:
            yield from self._read_text()
            return
        wanted = None
        if self.path.suffix.lower() == ".parquet":
            wanted = [name for name in (self._prompt, "prompt_nsfw") if name in self._columns]
        for row in read_rows(self.path, wanted):
            yield row if isinstance(row, Skipped) else self._entry(*row)

    def _read_text(self) -> Iterator[Entry]:
        try:
            for line in read_lines(self.path):
                if prompt := clean_prompt(line):
                    yield Entry(prompt, None, {"source": self.path.name})
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _entry(self, number: int, values: dict[str, Any]) -> Entry | Skipped:
        uri = f"{self.path}:{number}"
        prompt = values.pop(self._prompt or "", None)
        if prompt is not None and not isinstance(prompt, str):
            return Skipped(uri, BAD_ROW, f"a {type(prompt).__name__} in column {self._prompt!r} where text is due")
        prompt = clean_prompt(prompt or "")
        if not prompt:
            return Skipped(uri, NO_PROMPT, f"column {self._prompt!r} is empty")
        metadata = clean_metadata(values)
        score = metadata.get("prompt_nsfw")
        if self._nsfw_limit is not None and score is not None and score > self._nsfw_limit:
            return Skipped(uri, FILTER_PROMPT_NSFW, f"{score:g} is over {self._nsfw_limit:g}")
        # Counts are kept by source: a prompt that two lists hold is counted in both.
        return Entry(prompt, None, {"source": self.path.name, **metadata})


def _hash(prompt: str) -> int:
    return int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
