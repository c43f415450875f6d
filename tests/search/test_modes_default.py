from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from compose_tasks import (
    DIM,
    TARGETS,
    Encoder,
    compose,
    cosine,
)
from unprompt.index.vocabulary import Vocabulary
from unprompt.search.modes.default import KIND_LIMITS, MAX_FRAGMENTS, MIN_GAIN, OPTIONS
from unprompt.search.ranker import FragmentRanker
from unprompt.types import Embeddings, Fragment


def test_default_takes_only_fragments_that_earn_their_place() -> None:
    for target in TARGETS:
        found = compose("default", target, "a dog")
        fragments = found.parts[1:]
        assert len(fragments) <= MAX_FRAGMENTS
        for kind, limit in KIND_LIMITS.items():
            assert sum(part.kind == kind for part in fragments) <= limit
        for left_out in fragments:
            rest = ", ".join(part.text for part in found.parts if part is not left_out)
            assert found.score - cosine(rest, target) >= MIN_GAIN - 2e-4
    assert compose("default", "dog", "a dog").prompt == "a dog"


def test_default_encodes_few_prompts_and_finds_nearly_as_good_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def encode(texts: Sequence[str]) -> Embeddings:
        calls.extend(texts)
        return Encoder(DIM).encode_texts(texts)

    few = [compose("default", target, start, encode=encode) for target in TARGETS for start in ("a dog", None)]
    encoded = len(calls)
    exhaustive = replace(OPTIONS, passes=99, tried=10**6)
    monkeypatch.setattr("unprompt.search.modes.default.OPTIONS", exhaustive)
    calls.clear()
    best = [compose("default", target, start, encode=encode) for target in TARGETS for start in ("a dog", None)]
    assert encoded < 0.25 * len(calls)
    shares = [each.score / other.score for each, other in zip(few, best, strict=True)]
    assert min(shares) > 0.85
    assert sum(shares) / len(shares) > 0.95


def test_default_ignores_fragments_that_fit_every_picture() -> None:
    from unprompt.index.calibration import Calibration

    encoder = Encoder(DIM)
    fragments = [Fragment("flavor1 tint1", "flavor"), Fragment("flavor2 tint2", "flavor")]
    matrix = encoder.encode_texts([each.text for each in fragments])
    # Every reference picture shows the first flavor more than the query does.
    reference = encoder.encode_texts([f"flavor1 tint1 thing{i}" for i in range(40)])
    calibrated = Vocabulary.of(fragments, matrix)
    calibrated.calibration = Calibration.fit(matrix, reference)
    target = "dog cat flavor1 tint1 flavor2 tint2"
    assert (
        "flavor1" in compose("default", target, "dog", ranker=FragmentRanker(Vocabulary.of(fragments, matrix))).prompt
    )
    found = compose("default", target, "dog", ranker=FragmentRanker(calibrated))
    assert found.prompt == "dog, flavor2 tint2"
