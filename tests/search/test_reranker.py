from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import normalise
from unprompt.errors import EncoderError
from unprompt.search.candidates import Found, collect_candidates
from unprompt.search.reranker import OTHER, WEIGHTS, Model, Reranker, Signals, read_signals
from unprompt.search.results import Neighbour
from unprompt.search.train_reranker import CONTEXTS, FEATURES, GATED, Judged, fit, save
from unprompt.types import Candidate, Embeddings, Hit, Part, Record

PLANE = {"east": 0.0, "east by north": 20.0, "north east": 45.0, "north": 90.0, "west": 180.0}
"""Texts as directions, in degrees."""


def encode(texts: Sequence[str]) -> Embeddings:
    angles = np.radians([PLANE[text] for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def found(*prompts: str, cosines: Sequence[float] = (0.9, 0.8, 0.7, 0.6)) -> list[Neighbour]:
    return [
        Neighbour(Hit(f"id{rank}", score, rank), Record(f"id{rank}", prompt))
        for rank, (prompt, score) in enumerate(zip(prompts, cosines, strict=False), start=1)
    ]


def caption(text: str, score: float) -> Candidate:
    return Candidate(text, score, (Part(text, "captioner:lstm", "caption", score),))


def signals_of(query: str, each: Found) -> tuple[list[Candidate], Signals]:
    (candidates,) = collect_candidates([each])
    texts = encode([one.prompt for one in candidates]).astype(np.float64)
    return candidates, read_signals(encode([query])[0].astype(np.float64), candidates, texts, each.neighbours)


def one_feature(name: str) -> Reranker:
    return Reranker(Model((name,), (), {}, False, (1.0,)))


def test_agreement_with_neighbours_worked_by_hand() -> None:
    _, signals = signals_of("north", Found(found("east", "north", cosines=(0.9, 0.85))))
    # The second is 0.05 less similar, and so has 1/e of the first one's vote.
    first = 1 / (1 + np.exp(-1))
    assert signals.features["con_nb"] == pytest.approx([first, 1 - first], abs=1e-6)
    assert signals.features["con_all"] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert signals.features["nbgap"] == pytest.approx([0, -0.05])
    assert signals.features["cos"] == pytest.approx([0, 1], abs=1e-6)
    assert signals.context["gap"] == pytest.approx(0.05)
    assert signals.context["text_gain"] == pytest.approx(-0.9)


def test_captions_agree_by_their_likelihood() -> None:
    _, signals = signals_of("east", Found(captions=[caption("east", -0.5), caption("north", -1.0)]))
    likelier = 1 / (1 + np.exp(-1))
    assert signals.features["con_cap"] == pytest.approx([likelier, 1 - likelier], abs=1e-6)
    assert signals.features["iscap"].tolist() == [1, 1]
    assert signals.context["qcap"] == pytest.approx(likelier / np.hypot(likelier, 1 - likelier))


def test_what_is_missing_says_nothing() -> None:
    _, signals = signals_of("east", Found(near=[Hit("north", 0.5, 1)]))
    for name in ("con_nb", "con_cap", "nbgap"):
        assert signals.features[name].tolist() == [0]
    assert signals.context["qcap"] == signals.context["gap"] == signals.context["agree"] == 0
    assert all(np.isfinite(values).all() for values in signals.features.values())


def test_agreement_prefers_the_middle_to_the_nearest() -> None:
    each = Found(found("east", "north east", "north"))
    candidates = collect_candidates([each])
    best = one_feature("con_all").rank(encode(["east"]), candidates, [each.neighbours], encode)[0]
    assert best[0].prompt == "north east"
    assert one_feature("cos").rank(encode(["east"]), candidates, [each.neighbours], encode)[0][0].prompt == "east"


def test_ranking_keeps_every_candidate_and_its_sources_and_measures_cosines() -> None:
    composed = Candidate("west", 0.0, (Part("a", "neighbour:id1", "subject", 0.1), Part("b", "vocabulary", "x", 0.2)))
    each = Found(found("east", "north"), [Hit("east", 0.9, 1)], [composed], [caption("north east", -1.0)])
    candidates = collect_candidates([each])
    (ranked,) = one_feature("cos").rank(encode(["east"]), candidates, [each.neighbours], encode)
    assert [(one.prompt, round(one.score, 4)) for one in ranked] == [
        ("east", 1.0),
        ("north east", 0.7071),
        ("north", 0.0),
        ("west", -1.0),
    ]
    assert ranked[0].parts == (Part("east", "neighbour:id1+prompts", "prompt", 1.0, 1.0),)
    assert ranked[1].parts[0].source == "captioner:lstm"
    assert ranked[1].parts[0].score == ranked[1].score
    assert ranked[3].parts == composed.parts


def test_equal_candidates_stay_as_they_came_and_a_batch_changes_nothing() -> None:
    flat = one_feature("iscap")
    lists = [Found(found("north", "east")), Found(), Found(found("west", "north", "east"))]
    candidates, near = collect_candidates(lists), [each.neighbours for each in lists]
    together = flat.rank(encode(["east", "north", "west"]), candidates, near, encode)
    assert [[one.prompt for one in ranked] for ranked in together] == [
        ["north", "east"],
        [],
        ["west", "north", "east"],
    ]
    packaged = Reranker.load("starter")
    together = packaged.rank(encode(["east", "north", "west"]), candidates, near, encode)
    alone = [
        packaged.rank(encode([query]), [held], [seen], encode)[0]
        for query, held, seen in zip(("east", "north", "west"), candidates, near, strict=True)
    ]
    assert together == alone
    assert flat.rank(np.zeros((0, 2), np.float32), [], [], encode) == []


def test_texts_are_encoded_once() -> None:
    asked: list[list[str]] = []

    def counting(texts: Sequence[str]) -> Embeddings:
        asked.append(list(texts))
        return encode(texts)

    lists = [Found(found("north", "east")), Found(found("east", "west"))]
    near = [each.neighbours for each in lists]
    one_feature("cos").rank(encode(["east", "east"]), collect_candidates(lists), near, counting)
    assert asked == [["north", "east", "west"]]


def test_what_is_known_is_not_encoded_and_is_each_pictures_own() -> None:
    asked: list[list[str]] = []

    def counting(texts: Sequence[str]) -> Embeddings:
        asked.append(list(texts))
        return encode(texts)

    lists = [Found(found("north", "east")), Found(found("north", "west"))]
    near, candidates = [each.neighbours for each in lists], collect_candidates(lists)
    queries = encode(["north", "north"])
    north, east, west = encode(["north", "east", "west"]).astype(np.float64)
    known = [{"north": -north}, {"west": north}]
    first, second = one_feature("cos").rank(queries, candidates, near, counting, known)
    assert asked == [["east", "north"]]
    assert [(one.prompt, one.score) for one in first] == [("east", 0.0), ("north", -1.0)]
    assert [(one.prompt, one.score) for one in second] == [("north", 1.0), ("west", 1.0)]
    all_known = [{"north": north, "east": east, "west": west}] * 2
    assert one_feature("cos").rank(queries, candidates, near, counting, all_known) == one_feature("cos").rank(
        queries, candidates, near, encode
    )
    assert len(asked) == 1


def test_a_gate_turns_a_feature_with_the_picture_and_is_cut() -> None:
    model = Model((), ("cos",), {"agree": (0.5, 0.1)}, False, (1.0,))
    features = {"cos": np.array([1.0, 0.0])}
    assert model.predict(Signals(features, {"agree": 0.6})) == pytest.approx([0.5, -0.5])
    assert model.predict(Signals(features, {"agree": 0.4})) == pytest.approx([-0.5, 0.5])
    assert model.predict(Signals(features, {"agree": 99.0})) == pytest.approx([1.0, -1.0])


def test_a_scaled_model_is_blind_to_shift_and_scale() -> None:
    model = Model(("cos",), (), {}, True, (1.0,))
    values = np.array([0.2, 0.5, 0.9])
    narrow = model.predict(Signals({"cos": 10 + 0.5 * values}, {}))
    assert narrow == pytest.approx(model.predict(Signals({"cos": values}, {})), rel=0.02)


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="model of 3 terms came with 2 weights"):
        Model(("cos",), ("cos", "rrf"), {"agree": (0, 1)}, False, (1.0, 2.0))


def judged(count: int, truth: dict[str, float], flip: bool = False) -> list[Judged]:
    """Pictures whose targets are known sums of their features; with `flip` the sign goes with a context."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        features = {name: rng.standard_normal(12) for name in FEATURES}
        context = {name: float(rng.choice([-1.0, 1.0])) for name in CONTEXTS}
        sign = context["agree"] if flip else 1.0
        targets = sign * np.sum([weight * features[name] for name, weight in truth.items()], axis=0) + rng.normal()
        pictures.append(Judged(Signals(features, context), targets))
    return pictures


def test_fitting_finds_the_weights_behind_the_targets() -> None:
    model = fit(judged(200, {"cos": 0.3, "con_all": -0.2}), gated=False, ridge=1e-6)
    weights = dict(zip(model.features, model.weights, strict=True))
    assert weights["cos"] == pytest.approx(0.3, abs=1e-3)
    assert weights["con_all"] == pytest.approx(-0.2, abs=1e-3)
    assert max(abs(weights[name]) for name in FEATURES if name not in ("cos", "con_all")) < 1e-3


def test_fitting_learns_what_depends_on_the_picture() -> None:
    pictures = judged(200, {"cos": 0.3}, flip=True)
    gated, plain = fit(pictures, ridge=1e-4), fit(pictures, gated=False, ridge=1e-4)
    right = [np.argmax(gated.predict(one.signals)) == np.argmax(one.targets) for one in pictures]
    lost = [np.argmax(plain.predict(one.signals)) == np.argmax(one.targets) for one in pictures]
    assert np.mean(right) > 0.95
    assert np.mean(lost) < 0.5


def test_a_picture_counts_by_its_weight() -> None:
    up, down = judged(20, {"cos": 0.3}), judged(20, {"cos": -0.3})
    heavy = [replace(one, weight=100.0) for one in up]
    assert fit([*heavy, *down], gated=False).weights[0] > 0.25
    assert fit([*up, *(replace(one, weight=100.0) for one in down)], gated=False).weights[0] < -0.25


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pictures"):
        fit([])
    with pytest.raises(ValueError, match="ridge 0"):
        fit(judged(2, {"cos": 1.0}), ridge=0)


def test_saving_and_loading_keep_the_model(tmp_path: Path) -> None:
    own, other = fit(judged(20, {"cos": 0.3})), fit(judged(20, {"rrf": 0.3}), gated=False, scaled=True)
    path = tmp_path / "reranker.json"
    save({"starter": own, OTHER: other}, {"data": "made up"}, path)
    assert Reranker.load("starter", path).model == own
    assert Reranker.load("open_clip:ViT-B-32", path).model == other
    assert json.loads(path.read_text(encoding="utf-8"))["facts"] == {"data": "made up"}


@pytest.mark.parametrize("text", ["", "{", '{"format": "other/1"}', '{"format": "unprompt-reranker/1", "models": {}}'])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reranker.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EncoderError, match="holds no reranker") as error:
        Reranker.load(path=path)
    assert "\n" not in str(error.value)
    with pytest.raises(EncoderError, match="install unprompt again"):
        Reranker.load(path=tmp_path / "none.json")


def test_the_packaged_models_are_what_the_trainer_makes() -> None:
    own, other = Reranker.load("starter").model, Reranker.load().model
    assert own.features == other.features == FEATURES
    assert (own.gated, tuple(own.contexts), own.scaled) == (GATED, CONTEXTS, False)
    assert (other.gated, dict(other.contexts), other.scaled) == ((), {}, True)
    assert WEIGHTS.stat().st_size < 20_000


def test_packaged_models_trust_texts_over_a_lone_neighbour_far_away() -> None:
    """A hub: near in no text's sense, but the nearest picture there is."""
    directions = normalise(np.eye(6) + 0.6)
    texts = {"hub": -directions[0], **{f"near {i}": directions[i] for i in range(1, 6)}}
    near = [Hit(text, 0.6, rank) for rank, text in enumerate(list(texts)[1:], start=1)]
    each = Found(found("hub", cosines=(0.3,)), near)

    def embed(wanted: Sequence[str]) -> Embeddings:
        return np.stack([texts[text] for text in wanted]).astype(np.float32)

    query = normalise(directions[1:].mean(axis=0, keepdims=True))
    for name in ("starter", OTHER):
        (ranked,) = Reranker.load(name).rank(query, collect_candidates([each]), [each.neighbours], embed)
        assert ranked[-1].prompt == "hub", name
