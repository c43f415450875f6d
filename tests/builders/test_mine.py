"""Mining prompts for fragments: counting, guessing kinds, proposing what is new."""

from __future__ import annotations

import importlib.util
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from fakes import FakeEncoder
from tiny_library import write_library
from unprompt.builders.fragments import read_fragments
from unprompt.builders.kinds import KINDS, KindGuesser, confusion, kind_key
from unprompt.builders.mine import FragmentCounter, Proposal, fragment_key, library_prompts, mine
from unprompt.types import Fragment

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the prompt lists in ../shared")
needs_ci = pytest.mark.skipif(importlib.util.find_spec("clip_interrogator") is None, reason="needs clip-interrogator")

PROMPTS = [
    ("a cat, Oil on Canvas, by Claude Monet, trending on artstation", 3),
    ("a dog, oil on canvas, art by claude monet and wlop, art nouveau", 2),
    ("a bird, oil on canvas, oil on canvas, soft light", 1),
]


def test_proposals_are_counted_by_prompt_and_sorted() -> None:
    assert mine(PROMPTS, min_count=2) == [
        Proposal("medium", "Oil on Canvas", 6, PROMPTS[0][0]),
        Proposal("artist", "Claude Monet", 5, PROMPTS[0][0]),
        Proposal("flavor", "a cat", 3, PROMPTS[0][0]),
        Proposal("trending", "trending on artstation", 3, PROMPTS[0][0]),
        Proposal("movement", "art nouveau", 2, PROMPTS[1][0]),
        Proposal("flavor", "a dog", 2, PROMPTS[1][0]),
        Proposal("artist", "wlop", 2, PROMPTS[1][0]),
    ]


def test_what_the_vocabulary_has_is_not_proposed_whatever_its_spelling_or_kind() -> None:
    known = [
        Fragment("claude monet", "artist"),
        Fragment("an oil on canvas", "flavor"),
        Fragment("Art-Nouveau", "mine"),
        Fragment("by WLOP", "artist"),
    ]
    assert [p.text for p in mine(PROMPTS, known, min_count=2)] == ["a cat", "trending on artstation", "a dog"]


def test_kinds_and_limit_choose() -> None:
    assert [p.text for p in mine(PROMPTS, min_count=1, kinds=["artist"])] == ["Claude Monet", "wlop"]
    assert [p.text for p in mine(PROMPTS, min_count=1, kinds=["artist", "medium"], limit=2)] == [
        "Oil on Canvas",
        "Claude Monet",
    ]


def test_the_order_of_prompts_changes_nothing_but_examples() -> None:
    forward, backward = mine(PROMPTS, min_count=1), mine(PROMPTS[::-1], min_count=1)
    assert [(p.kind, p.text, p.count) for p in forward] == [(p.kind, p.text, p.count) for p in backward]


def test_long_fragments_are_left_out_and_progress_is_told() -> None:
    done: list[int] = []
    found = mine([("a man who walks down a very long road in the rain, ink", 5)], min_count=1, progress=done.append)
    assert ([p.text for p in found], done) == (["ink"], [1])


def test_bare_names_are_artists_where_prompts_credit_them() -> None:
    prompts = [
        ("a cat, by zorbo", 1),
        *[(f"a {x}, zorbo, ink", 1) for x in ("cat", "dog", "cow")],
        ("emma stone, ink", 9),
    ]
    kinds = {p.text: p.kind for p in mine(prompts, min_count=1)}
    assert kinds["zorbo"] == "artist"
    assert kinds["emma stone"] == "flavor"  # a person who leads a prompt is who it shows


def test_counts_are_exact_until_memory_is_short_and_then_low_by_a_known_error() -> None:
    prompts = [(f"thing{i % 97}, thing{i * i % 331}, soft light", 1 + i % 3) for i in range(3000)]
    exact: Counter[str] = Counter()
    for prompt, count in prompts:
        exact.update(dict.fromkeys(prompt.split(", "), count))
    whole, small = FragmentCounter(), FragmentCounter(max_groups=60)
    for prompt, count in prompts:
        whole.add(prompt, count)
        small.add(prompt, count)
        assert len(small) <= 60
    assert {key: group.count for key, group in whole.groups()} == exact
    assert (whole.error, whole.prompts) == (0, small.prompts)
    assert small.error > 0
    kept = {key: group.count for key, group in small.groups()}
    assert all(exact[key] - small.error <= count <= exact[key] for key, count in kept.items())
    assert kept["soft light"] == exact["soft light"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("4 k", "4K"),
        ("An Oil-Painting", "oil painting"),
        ("award - winning photo", "award-winning photo"),
        ("H. R. Giger", "hr giger"),
        ("Zdzisław Beksiński", "zdzisław beksinski"),
    ],
)
def test_spellings_that_meet(one: str, other: str) -> None:
    assert fragment_key(one) == fragment_key(other)


def test_different_fragments_do_not_meet() -> None:
    texts = ["8k", "4k", "art", "arts", "猫", "犬", "c", "d"]
    assert len({fragment_key(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("trending on artstation", "trending"),
        ("ArtStation HQ", "trending"),
        ("cg society contest winner", "trending"),
        ("oil on canvas", "medium"),
        ("a detailed matte painting", "medium"),
        ("pixel art", "medium"),
        ("art nouveau", "movement"),
        ("abstract expressionism", "movement"),
        ("hyper - realism", "movement"),
        ("bad anatomy", "negative"),
        ("extra limbs", "negative"),
        ("highly detailed", "flavor"),
        ("a red fish", "flavor"),
        ("photo of a red fish", "flavor"),
        ("by Nobody Known", "artist"),
    ],
)
def test_kinds_are_guessed(text: str, kind: str) -> None:
    assert KindGuesser().guess(text, credited=text.startswith("by ")) == kind


def test_known_fragments_overrule_the_rules() -> None:
    guesser = KindGuesser(
        [Fragment("highly detailed", "quality"), Fragment("Artgerm", "artist"), Fragment("x", "flavor")]
    )
    assert [guesser.guess(text) for text in ("Highly Detailed", "artgerm", "by Artgerm", "x")] == [
        "quality", "artist", "artist", "flavor",
    ]  # fmt: skip
    assert kind_key("A 3D render") == kind_key("3d render")


def test_a_library_s_prompts_come_with_their_counts(tmp_path: Path) -> None:
    prompts = {f"prompt {i}, oil on canvas": 1 + i % 3 for i in range(50)}
    library = write_library(tmp_path / "l", FakeEncoder(), prompts=prompts)
    assert dict(library_prompts(library)) == prompts
    found = mine(library_prompts(library), min_count=10)
    assert [(p.kind, p.text, p.count) for p in found] == [("medium", "oil on canvas", sum(prompts.values()))]


@needs_ci
def test_how_often_the_rules_alone_find_the_kind_of_listed_fragments(capsys: pytest.CaptureFixture[str]) -> None:
    truth = {f.text: f.kind for f in read_fragments("clip-interrogator") if f.kind != "flavor"}
    counts = confusion(KindGuesser(), truth)
    total = Counter(truth.values())
    right = {kind: counts.get((kind, kind), 0) / total[kind] for kind in KINDS if total[kind]}
    with capsys.disabled():
        print("\nkinds found by words alone: " + ", ".join(f"{kind} {share:.0%}" for kind, share in right.items()))
    assert right["trending"] == 1
    assert right["medium"] > 0.9
    assert right["movement"] > 0.7
    assert right["artist"] > 0.6  # bare names, and only for having a known given name; behind "by" all are found


@needs_shared
def test_mining_the_shared_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = Counter(
        json.loads(line)["prompt"]
        for path in sorted((SHARED / "prompts").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()[::2]
    )
    started = time.process_time()
    found = mine(prompts.items(), min_count=5)
    seconds = time.process_time() - started
    with capsys.disabled():
        print(f"\nmined {len(found):,} fragments of {sum(prompts.values()):,} prompts in {seconds:.1f} s of CPU")
    kinds = {p.text.casefold(): p.kind for p in found}
    for artist in ("greg rutkowski", "artgerm", "alphonse mucha", "wlop", "makoto shinkai"):
        assert kinds[artist] == "artist"
    assert (kinds["trending on artstation"], kinds["oil on canvas"], kinds["art nouveau"]) == (
        "trending", "medium", "movement",
    )  # fmt: skip
    assert kinds["highly detailed"] == "flavor"
    assert all(p.count >= 5 for p in found)
