"""The default answer: candidates from all that was found, composed and written, and the learnt ranker's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, colour_picture
from tiny_library import write_library
from unprompt.errors import QueryError
from unprompt.index.library import Library
from unprompt.search.budget import TokenBudget, load_budget
from unprompt.search.captions import BEAMS, TOLD, write_captions
from unprompt.search.engine import Engine
from unprompt.search.evidence import find_evidence
from unprompt.search.fusion import COPY, Fusion
from unprompt.search.inputs import KEPT
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.policy import Policy
from unprompt.search.queries import Query, combine, text_queries
from unprompt.search.ranker import FragmentRanker
from unprompt.search.reranker import Model, Reranker
from unprompt.search.settings import INGREDIENTS, Settings
from unprompt.types import Candidate, Fragment, Part

NEAREST = Reranker(Model(("cos",), (), {}, False, (1.0,)))
"""Prefers what is nearest to the picture."""
WRITTEN = Reranker(Model(("iscap", "cos"), (), {}, False, (10.0, 1.0)))
"""Prefers captions."""


class Writer:
    """A captioner that writes the same captions for every picture, and remembers what it was shown and told."""

    def __init__(self, *captions: str, name: str = "writer") -> None:
        self.captions, self.name = captions, name
        self.seen: list[Image.Image] = []
        self.told: list[Sequence[str]] = []

    def caption(
        self,
        images: Sequence[Image.Image],
        *,
        num_beams: int,
        max_tokens: int,
        neighbours: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Candidate]]:
        assert num_beams == BEAMS
        assert max_tokens > 30
        assert neighbours is None or len(neighbours) == len(images)
        self.seen += images
        self.told += neighbours or []
        source = f"captioner:{self.name}"
        written = [
            Candidate(text, -rank - 1e-7 * len(images), (Part(text, source, "caption", -1.0),))
            for rank, text in enumerate(self.captions)
        ]
        return [written for _ in images]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red picture that no library holds."""
    return colour_picture(tmp_path / "red.png", "red", seed=999, size=(40, 30))


def engine_of(library: Library, reranker: Reranker, *captioners: Writer) -> Engine:
    engine = Engine(library, FakeEncoder(), captioners=captioners)
    engine.__dict__["_fusion"] = Fusion(reranker, captioners)
    return engine


def final(engine: Engine, picture: object, **settings: object) -> Candidate:
    [result] = engine.query(picture, settings=Settings(**settings))  # type: ignore[arg-type]
    return result.final


def test_what_a_captioner_wrote_can_be_the_answer_and_says_so(library: Library, red: Path) -> None:
    writer = Writer("a red vermilion square", "nothing of the kind")
    answer = final(engine_of(library, WRITTEN, writer), red)
    assert answer.prompt == "a red vermilion square"
    assert [(part.source, part.kind) for part in answer.parts] == [("captioner:writer", "caption")]
    embedded = FakeEncoder().encode_texts([answer.prompt]) @ FakeEncoder().encode_images([Image.open(red)]).T
    assert answer.score == answer.parts[0].score == pytest.approx(float(embedded.item()), abs=1e-5)


def test_captioners_see_the_picture_and_are_told_its_neighbours_prompts(library: Library, red: Path) -> None:
    writer = Writer("x")
    [result] = engine_of(library, NEAREST, writer).query(red, k=40)
    assert [np.asarray(picture).tolist() for picture in writer.seen] == [np.asarray(Image.open(red)).tolist()]
    prompts = list(dict.fromkeys(each.record.prompt for each in result.neighbours))
    assert writer.told == [prompts[:TOLD]]


def test_several_captioners_are_asked(library: Library, red: Path) -> None:
    writers = Writer("one", name="a"), Writer("two red red", name="b")
    engine = engine_of(library, WRITTEN, *writers)
    assert final(engine, red).parts[0].source == "captioner:b"
    found = engine.ingredients(next(engine.embed(red)))[0]
    assert (found["captioner:a"], found["captioner:b"]) == ("one", "two red red")


def test_a_caption_with_a_prompts_words_is_noted_on_it(library: Library, red: Path) -> None:
    [result] = engine_of(library, WRITTEN, Writer("A RED THING; photo")).query(red)
    assert result.final.prompt == "a red thing, photo"
    assert result.final.parts[0].source.startswith("neighbour:")
    assert result.final.parts[0].source.endswith("+captioner:writer")


def test_the_ranker_chooses_among_all_ingredients(library: Library, red: Path) -> None:
    engine = engine_of(library, NEAREST, Writer("red"))
    [query] = next(engine.embed(red))
    found = engine.ingredients([query])[0]
    assert list(found) == ["neighbours", "prompts", "rrf", "composed", "subject", "engine", "captioner:writer"]
    scores = {text: float(FakeEncoder().encode_texts([text])[0] @ query.embedding) for text in found.values()}
    assert found["engine"] == final(engine, red).prompt
    assert scores[found["engine"]] == max(scores.values())
    assert found["composed"] == final(engine, red, rerank=False).prompt
    [result] = engine.search([query])
    assert found["neighbours"] == result.neighbours[0].record.prompt
    assert found["rrf"] == result.prompts[0].prompt


@pytest.mark.parametrize("name", INGREDIENTS)
def test_each_ingredient_can_be_left_out_and_can_stand_alone(library: Library, red: Path, name: str) -> None:
    writer = Writer("a red caption")
    engine = engine_of(library, NEAREST, writer)
    alone = final(engine, red, ingredients=(name,))
    kind = {
        "neighbours": alone.parts[0].source.startswith("neighbour:"),
        "prompts": alone.parts[0].source == "prompts",
        "composed": len(alone.parts) > 1,
        "captions": alone.prompt == "a red caption",
    }
    assert kind[name]
    assert len(writer.seen) == (name == "captions")
    final(engine, red, ingredients=tuple(each for each in INGREDIENTS if each != name))
    assert len(writer.seen) == 1


@pytest.mark.parametrize("mode", ["fast", "classic", "best"])
def test_a_captioner_can_write_the_subject(library: Library, red: Path, mode: str) -> None:
    writer = Writer("something green", "   ", "something red", "something blue")
    engine = engine_of(library, NEAREST, writer)
    answer = final(engine, red, mode=mode, captioned=True)
    assert answer.prompt.startswith("something red")  # the nearest, not the likeliest
    assert (answer.parts[0].source, answer.parts[0].kind) == ("captioner:writer", "subject")
    assert final(engine, red, mode=mode).parts[0].source != "captioner:writer"
    silent = engine_of(library, NEAREST, Writer())
    assert final(silent, red, mode=mode, captioned=True) == final(engine, red, mode=mode)


def test_subjects_that_nobody_can_write_are_refused(library: Library, red: Path) -> None:
    with pytest.raises(QueryError, match="no captioner writes subjects: pass captioners to Engine"):
        final(engine_of(library, NEAREST), red, mode="classic", captioned=True)
    for settings in ({}, {"mode": "retrieve"}, {"mode": "negative"}, {"mode": "fast", "subject": "a ship"}):
        with pytest.raises(QueryError, match="captioners write no subject in mode"):
            Settings(captioned=True, **settings)  # type: ignore[arg-type]


def test_fragments_alone_are_a_candidate_too(library: Library, red: Path) -> None:
    engine = engine_of(library, NEAREST)
    [query] = next(engine.embed(red))
    evidence = find_evidence(library, [query], 50)
    ranker = FragmentRanker(library.vocabulary)
    task = ComposeInput(query.embedding[None], [None], ranker, engine.encoder.encode_texts, load_budget("clip"))
    [found] = Fusion(NEAREST).find(task, evidence)
    assert len(found.composed) == 3
    assert {part.source.partition(":")[0] for part in found.composed[2].parts} == {"vocabulary"}
    assert [found.composed[2]] == MODES["default"](task)


def test_settings_name_ingredients_that_there_are() -> None:
    with pytest.raises(QueryError, match="unknown ingredient 'luck': use any of neighbours, prompts"):
        Settings(ingredients=("luck",))
    with pytest.raises(QueryError, match="no ingredient"):
        Settings(ingredients=())
    assert not Settings(ingredients=(), rerank=False).wants_captions
    assert Settings().wants_captions
    for other in (Settings(mode="fast"), Settings(subject="a ship"), Settings(ingredients=INGREDIENTS[:-1])):
        assert not other.wants_captions


def test_captioners_are_asked_only_where_captions_can_be_of_use(
    library: Library, pairs: list[tuple[Path, str]], red: Path
) -> None:
    writer = Writer("a red caption")
    engine = engine_of(library, WRITTEN, writer)
    for settings in ({"mode": "fast"}, {"subject": "a ship"}, {"rerank": False}):
        final(engine, red, **settings)
    held = final(engine, pairs[0][0])
    assert held.prompt == pairs[0][1]
    [query] = next(engine.embed(red))
    queries = [*text_queries(["a red thing"], engine.encoder), combine([query, query]), replace(query, picture=None)]
    results = engine.search(queries)
    assert all(result.final.prompt for result in results)
    assert writer.seen == []
    assert [each.final.prompt for each in engine.search([*queries, query])][3] == "a red caption"
    assert len(writer.seen) == 1


def test_pictures_are_kept_only_for_captioners_and_then_reduced(library: Library, tmp_path: Path) -> None:
    large = Image.new("RGB", (3000, 1000), (220, 30, 30))
    [[plain]] = Engine(library, FakeEncoder()).embed(large)
    assert plain.picture is None
    engine = engine_of(library, NEAREST, Writer("x"))
    large.save(tmp_path / "large.png")
    for image in (large, np.asarray(large), tmp_path / "large.png"):
        [[query]] = engine.embed(image)
        assert query.picture is not None
        assert query.picture.size == (3 * KEPT[0], KEPT[0])
        assert np.array_equal(query.embedding, plain.embedding)
    [[strip]] = engine.embed(large.resize((5000, 20)))
    assert strip.picture is not None
    assert strip.picture.size == (KEPT[1], 8)
    small = large.resize((40, 30))
    [[query]] = engine.embed(small)
    assert np.array_equal(np.asarray(query.picture), np.asarray(small))


def test_a_policy_and_the_budget_hold_for_whatever_is_chosen(encoder: FakeEncoder, red: Path, tmp_path: Path) -> None:
    prompts = {"a red ship by Claude Monet, gore": 1, "a red boat, " + ", ".join(f"detail {i}" for i in range(60)): 1}
    fragments = [Fragment("Claude Monet", "artist"), Fragment("vivid red", "flavor")]
    library = write_library(tmp_path / "library", encoder, prompts=prompts, fragments=fragments)
    writer = Writer("red " * 60 + "by Claude Monet, gore", "red gore in the style of Claude Monet, a red red cat")
    policy = Policy(artists="none", forbid=("gore",), prefix="trigger", suffix="end")
    for reranker in (NEAREST, WRITTEN):
        engine = engine_of(library, reranker, writer)
        for ingredients in ((name,) for name in INGREDIENTS[1:]):
            [result] = engine.query(red, settings=Settings(policy=policy, ingredients=ingredients))
            prompt = result.final.prompt
            assert prompt.startswith("trigger, ")
            assert prompt.endswith(", end")
            assert "Monet" not in prompt
            assert "gore" not in prompt
            assert count_clip(prompt) <= 75
            assert all(part.text in prompt for part in result.final.parts)


def test_a_held_picture_whose_prompt_may_not_be_said_is_answered_like_any_other(
    pairs: list[tuple[Path, str]], tmp_path: Path
) -> None:
    path = pairs[0][0]
    library = write_library(tmp_path / "library", FakeEncoder(), [(path, "style of Akira Kurosawa"), *pairs[1:8]])
    engine = engine_of(library, WRITTEN, Writer("a red caption"))
    assert final(engine, path).prompt == "style of Akira Kurosawa"
    assert final(engine, path, policy=Policy(artists="none")).prompt == "a red caption"


def count_clip(text: str) -> int:
    from unprompt.encoders.clip_tokens import clip_token_ids

    return len(clip_token_ids([text])[0])


def test_an_unfit_candidate_is_cut_at_a_comma(encoder: FakeEncoder, tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", encoder, prompts={"red one two three, four five": 1})
    budget = TokenBudget("words", 4, 0, lambda texts: [len(text.split()) for text in texts])
    [query] = text_queries(["red four"], encoder)
    evidence = find_evidence(library, [query], 5)
    task = ComposeInput(query.embedding[None], [None], FragmentRanker(library.vocabulary), encoder.encode_texts, budget)
    fusion = Fusion(NEAREST)
    [[best, *_]] = fusion.rank(task, fusion.find(task, evidence))
    assert best.prompt == best.parts[0].text == "red one two three"
    assert best.parts[0].source == "prompts"


def test_a_copy_of_a_picture_gets_its_prompt(pairs: list[tuple[Path, str]], tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", FakeEncoder(), pairs[:8])  # one of each colour
    path, prompt = pairs[0]
    with Image.open(path) as image:
        image.save(tmp_path / "copy.bmp")
    engine = engine_of(library, WRITTEN, Writer("a red caption"))
    answer = final(engine, tmp_path / "copy.bmp")
    assert (answer.prompt, answer.parts[0].kind) == (prompt, "prompt")
    assert answer.parts[0].source.startswith("neighbour:")
    assert final(engine, tmp_path / "copy.bmp", ingredients=("captions",)).prompt == "a red caption"


def test_one_of_many_pictures_alike_is_no_copy(library: Library, red: Path) -> None:
    [result] = engine_of(library, WRITTEN, Writer("a red caption")).query(red)
    assert result.neighbours[0].hit.score > COPY
    assert result.final.prompt == "a red caption"


def test_the_answer_depends_on_neither_k_nor_the_batch(
    library: Library, pairs: list[tuple[Path, str]], tmp_path: Path
) -> None:
    pictures = [colour_picture(tmp_path / f"{i}.png", colour, seed=500 + i) for i, colour in enumerate(COLOURS)]
    engine = Engine(library, FakeEncoder(), captioners=[Writer("a red caption", "green"), Writer("blue", name="b")])
    together = engine.query(pictures, batch_size=50)
    for other in (engine.query(pictures, batch_size=1), engine.query(pictures, batch_size=3, k=40)):
        assert [each.final.prompt for each in other] == [each.final.prompt for each in together]
        assert [each.final.parts[0].source for each in other] == [each.final.parts[0].source for each in together]
        assert [each.final.score for each in other] == pytest.approx([each.final.score for each in together], abs=1e-5)


COLOURS = ("red", "green", "blue", "yellow", "black", "white", "cyan", "magenta")


def test_scores_of_captions_are_rounded_and_those_without_a_picture_have_none(library: Library, red: Path) -> None:
    queries = [
        Query("words", FakeEncoder().encode_texts(["red"])[0]),
        *next(engine_of(library, NEAREST, Writer()).embed(red)),
    ]
    evidence = find_evidence(library, [replace(each, picture=Image.new("RGB", (8, 8))) for each in queries], 10)
    evidence[0] = replace(evidence[0], query=queries[0])
    nothing, written = write_captions([Writer("a", "b")], evidence)
    assert nothing == []
    assert [each.score for each in written] == [0.0, -1.0]
    assert write_captions([], evidence) == [[], []]


def test_a_library_without_pictures_tells_captioners_nothing(encoder: FakeEncoder, red: Path, tmp_path: Path) -> None:
    library = write_library(tmp_path / "library", encoder)
    writer = Writer("a red caption")
    assert final(engine_of(library, NEAREST, writer), red).prompt == "a red caption"
    assert writer.told == []


def test_the_packaged_ranker_answers_with_and_without_captions(library: Library, red: Path) -> None:
    for captioners in ([], [Writer("a red thing, photo", "a red box")]):
        [result] = Engine(library, FakeEncoder(), captioners=captioners).query(red)
        assert "red" in result.final.prompt
        assert result.final.parts
