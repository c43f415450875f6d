"""The pictures of the comparison with CLIP Interrogator, and the caption that both sides start each of them from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from unprompt.encoders.training.data import SETS, Example, load_examples, prompt_group

SPLIT = "dev"
SEED = 14
"""Of the first seeds, one whose first 50 pictures share no prompt with those that composing was tuned on."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A picture of the comparison.

    Attributes:
        picture: its path under the data folder, and its cell where it is a quarter of a grid.
        prompt: what made it; no side sees it.
        caption: what both sides are given as its caption.
    """

    picture: str
    prompt: str
    caption: str


def choose(data: Path, count: int, offset: int = 0) -> list[Example]:
    """Picks pictures of the development split: the sets in turn, shuffled by `SEED`, no two prompts of one group.

    The first `offset` are passed over: a choice from there shares no prompt with them.
    """
    examples = [example for example in load_examples(data) if example.split == SPLIT]
    queues = {name: [example for example in examples if example.set == name] for name in SETS}
    generator = random.Random(SEED)
    for name in SETS:
        generator.shuffle(queues[name])
    chosen: list[Example] = []
    groups: set[str] = set()
    while len(chosen) < offset + count and any(queues.values()):
        for name in SETS:
            fresh = next((e for e in queues[name] if prompt_group(e.prompt) not in groups), None)
            queues[name] = queues[name][queues[name].index(fresh) + 1 :] if fresh else []
            if fresh:
                groups.add(prompt_group(fresh.prompt))
                chosen.append(fresh)
    return chosen[offset : offset + count]


def describe(example: Example, data: Path) -> Subject:
    """The picture with its caption: only what it shows, as a captioner that sees well would say in a few words."""
    in_sentences = example.set == "sdxl-fashion"
    caption = example.prompt.partition(",")[0] if in_sentences else f"a {example.subject or 'picture'}"
    path = example.path.relative_to(data).as_posix()
    return Subject(f"{path}#{example.cell}" if example.cell else path, example.prompt, caption)
