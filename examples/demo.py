"""The main job on real pictures, offline: build a library, add a vocabulary, query with pictures that it has not seen.

The pictures are those of the ComfyUI template packages whose workflow holds their true prompt; one prompt in six is
held back, with all pictures that it made. Run again, it reuses the library that is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from unprompt import Engine, Library, add_fragments, build_library, load_encoder, open_source, read_fragments
from unprompt.builders.vocabulary import count_terms
from unprompt.cli.build import describe
from unprompt.cli.progress import progress_bar
from unprompt.cli.query_output import format_result, shorten
from unprompt.types import Entry, Skipped

HELD_BACK = 6
QUERIES = 6


def is_held_back(entry: Entry) -> bool:
    """Whether a prompt is kept out of the library: one in `HELD_BACK`, by a hash of its words."""
    words = " ".join(entry.prompt.lower().split())
    return hashlib.sha256(words.encode()).digest()[0] % HELD_BACK == 0


def entries_of(held_back: bool) -> Iterator[Entry | Skipped]:
    for entry in open_source("comfyui-templates"):
        if isinstance(entry, Skipped):
            if not held_back:
                yield entry
        elif is_held_back(entry) == held_back:
            yield entry


def main() -> None:
    encoder = load_encoder("starter")
    library = Path(f"demo-{encoder.fingerprint[:8]}.library")  # a newer encoder makes a library of its own
    print("1. Build a library from generated pictures and their prompts")
    with progress_bar("build", " entries", sum(1 for _ in entries_of(held_back=False))) as progress:
        report = build_library([entries_of(held_back=False)], library, encoder, progress=progress)
    print(describe(report))

    print("\n2. Add the fragments of the clip-interrogator package")
    fragments = read_fragments("clip-interrogator")
    with progress_bar("vocabulary", " terms", count_terms(fragments)) as progress:
        added = add_fragments(library, fragments, encoder, progress)
    print(f"{len(fragments):,} fragments, {added.encoded:,} texts encoded now, {added.cached:,} known on this machine")

    print("\n3. Query it with pictures that were held back")
    queries = [entry for entry in entries_of(held_back=True) if isinstance(entry, Entry)][:QUERIES]
    engine = Engine(Library.open(library), encoder)
    pictures = [entry.picture.path for entry in queries if entry.picture]
    for entry, result in zip(queries, engine.query(pictures, k=5), strict=True):
        print(f"\ntrue prompt: {shorten(entry.prompt, 400)}\n{format_result(result)}", end="")
    print(f"\nYour turn: .venv/bin/unprompt query PICTURE --library {library}")


if __name__ == "__main__":
    main()
