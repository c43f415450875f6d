"""The figures of docs/results.md: every offline system on pictures that nothing here was trained on.

    python benchmarks/results.py --data ../shared/data --prompts ../shared/prompts/diffusiondb.jsonl --out results

The library holds the pictures of the training split (one quarter of each grid), prompts of DiffusionDB, and the terms
of clip-interrogator, whose package must be installed. Systems are evaluated on a sample of the test split; the slow
`interrogator-best` on a smaller one; and all but that on ComfyUI's template pictures, which are unlike anything that
was trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from unprompt import add_fragments, build_library, load_encoder, open_source, read_fragments
from unprompt.cli import main as unprompt
from unprompt.encoders.training.data import split_of
from unprompt.types import Entry, Skipped

SETS = ("sd15-artists", "sdxl-fashion", "sd1-modifiers", "sd14-artist-grids")
CAPTIONERS = ("lstm", "transformer", "bridge")
SYSTEMS = [
    "neighbours",
    "prompts",
    "rrf",
    "composed",
    "interrogator-fast",
    "interrogator-classic",
    *(name + told for name in CAPTIONERS for told in ("", "+neighbours")),
    "engine-no-captioner",
    "engine",
]
SLOW = ["interrogator-fast", "interrogator-best", "engine"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four sets of pictures")
    parser.add_argument("--prompts", type=Path, required=True, help="DiffusionDB's prompts, as lines of JSON")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000, help="pictures of the test split")
    parser.add_argument("--slow", type=int, default=50, help="of them for interrogator-best")
    options = parser.parse_args()
    library = options.out / "train.library"
    if not (library / "manifest.json").exists():
        encoder = load_encoder("starter")
        build_library([training_entries(options.data, options.prompts)], library, encoder, workers=2)
        add_fragments(library, read_fragments("clip-interrogator"), encoder)
    test = [argument for name in SETS for argument in ("--split", str(options.data / name))] + ["--part", "test"]
    for name, systems, chosen in (
        ("test", SYSTEMS, [*test, "--limit", str(options.limit)]),
        ("test-slow", SLOW, [*test, "--limit", str(options.slow), "--seed", "1"]),
        ("open-domain", SYSTEMS, ["--split", "comfyui-templates", "--part", "all"]),
    ):
        arguments = ["--library", str(library), "--systems", ",".join(systems), "--out", str(options.out / name)]
        code = unprompt(["evaluate", *chosen, *arguments], standalone_mode=False)
        if code:
            sys.exit(code)


def training_entries(data: Path, prompts: Path) -> Iterator[Entry | Skipped]:
    """Pictures of the training split with their prompts, then prompts alone."""
    for name in SETS:
        for entry in open_source(str(data / name)):
            if not isinstance(entry, Entry) or entry.picture is None or split_of(entry.prompt) != "train":
                continue
            if entry.picture.cell in (None, "tl"):
                yield entry
    yield from open_source(str(prompts))


if __name__ == "__main__":
    main()
