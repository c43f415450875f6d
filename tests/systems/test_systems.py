"""Systems by name on a small library: that they answer as the commands do, encode once, and notice what changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from fakes import FakeEncoder, colour_picture
from tiny_captioner import TinyGrid, colour_pairs, tiny_config, tiny_pictures
from tiny_library import write_library
from unprompt.captioners.captioner import TrainedCaptioner
from unprompt.captioners.train import train_captioner
from unprompt.errors import UnpromptError
from unprompt.evaluation.items import Item, Selection, select_items
from unprompt.evaluation.metrics import EvaluationError
from unprompt.evaluation.scoring import Statistics
from unprompt.index.library import Library
from unprompt.search.engine import Engine
from unprompt.search.fuse import reciprocal_rank_fusion
from unprompt.search.settings import Settings
from unprompt.systems import engines
from unprompt.systems.evaluate import Plan, evaluate_library
from unprompt.systems.registry import known_systems, make_systems
from unprompt.systems.retrieval import RetrievalSystem
from unprompt.systems.workshop import Workshop
from unprompt.types import Entry, Fragment, Picture

FRAGMENTS = [
    Fragment("Claude Monet", "artist", "artists.txt"),
    Fragment("oil painting", "medium", "mediums.txt"),
    Fragment("vivid red", "flavor", "flavors.txt"),
]
NAMES = ["neighbours", "prompts", "rrf", "interrogator-fast", "interrogator-classic", "composed", "engine-no-captioner"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner of a second's training, with more trust in neighbours than in itself."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config("lstm", "epochs=2")
    pairs, pictures = tiny_pictures(colour_pairs(folder / "pictures"), folder / "cache", config)
    train_captioner("lstm", pairs, pictures, config, folder / "mine")
    card = json.loads((folder / "mine" / "config.json").read_text())
    card["unprompt"]["neighbour_share"] = 0.9
    (folder / "mine" / "config.json").write_text(json.dumps(card))
    return folder / "mine"


class Loaded:
    """Counts what was loaded in place of the real models."""

    def __init__(self) -> None:
        self.encoders: list[FakeEncoder] = []
        self.grids: list[TinyGrid] = []

    def encoder(self, name: str, device: str = "cpu") -> FakeEncoder:
        self.encoders.append(FakeEncoder())
        return self.encoders[-1]

    def grid(self, name: str, device: str = "cpu") -> TinyGrid:
        self.grids.append(TinyGrid())
        return self.grids[-1]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    found = Loaded()
    monkeypatch.setattr("unprompt.systems.workshop.load_encoder", found.encoder)
    monkeypatch.setattr("unprompt.captioners.captioner.load_grid", found.grid)
    return found


@pytest.fixture
def library(tmp_path: Path, entries: list[Entry]) -> Library:
    pairs = [(Path(entry.picture.path), entry.prompt) for entry in entries if entry.picture]
    return write_library(tmp_path / "library", FakeEncoder(), pairs, {"a red sea": 1}, FRAGMENTS)


@pytest.fixture
def new(tmp_path: Path) -> list[Entry]:
    """Twenty pictures that the library has not."""
    colours = ["red", "green", "blue", "yellow"]
    paths = [colour_picture(tmp_path / "new" / f"{i:02d}.png", colours[i % 4], seed=900 + i) for i in range(20)]
    return [Entry(f"some {colours[i % 4]} object, charcoal", Picture(str(path))) for i, path in enumerate(paths)]


@pytest.fixture
def items(library: Library, new: list[Entry], tmp_path: Path) -> list[Item]:
    return list(select_items({"new": new}, Selection(), library).items)


@pytest.fixture
def workshop(library: Library, items: Sequence[Item], tmp_path: Path) -> Workshop:
    shop = Workshop(library, tmp_path / "cache")
    shop.embeddings.readable(items, lambda *step: None)
    return shop


class TestRetrieval:
    def test_answers_are_the_rankings_first(self, workshop: Workshop, items: list[Item]) -> None:
        found = {name: RetrievalSystem(name, workshop).answer(items) for name in ("neighbours", "prompts", "rrf")}
        own = Engine(workshop.library, FakeEncoder()).query([item.picture.path for item in items], k=5)
        for place, result in enumerate(own):
            neighbours, prompts, rrf = (found[name][place] for name in ("neighbours", "prompts", "rrf"))
            assert neighbours.text == result.neighbours[0].record.prompt
            assert rrf.prompts[:5] == tuple(each.prompt for each in result.prompts)
            fused = reciprocal_rank_fusion([neighbours.prompts, prompts.prompts])
            assert [prompt for prompt, _ in fused] == list(rrf.prompts)
            assert all(len({*answer.prompts}) == len(answer.prompts) for answer in (neighbours, prompts, rrf))

    def test_a_library_without_pictures(self, tmp_path: Path, items: list[Item]) -> None:
        bare = write_library(tmp_path / "bare", FakeEncoder(), prompts={"a red sea": 1})
        shop = Workshop(bare, tmp_path / "cache")
        shop.embeddings.readable(items, lambda *step: None)
        assert {answer.text for answer in RetrievalSystem("neighbours", shop).answer(items)} == {""}
        assert {answer.text for answer in RetrievalSystem("rrf", shop).answer(items)} == {"a red sea"}


class TestEngines:
    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("interrogator-fast", Settings(mode="fast")),
            ("interrogator-best", Settings(mode="best")),
            ("composed", Settings(rerank=False)),
            ("engine-no-captioner", Settings()),
        ],
    )
    def test_answers_are_the_querys(self, workshop: Workshop, items: list[Item], name: str, settings: Settings) -> None:
        (system,) = make_systems([name], workshop)
        answers = system.answer(items[:6])
        own = Engine(workshop.library, FakeEncoder()).query([i.picture.path for i in items[:6]], settings=settings)
        assert [answer.text for answer in answers] == [result.final.prompt for result in own]
        assert all(answer.fragments for answer in answers)
        assert system.texts_encoded > 0

    def test_the_default_has_the_captioners_candidates(
        self, workshop: Workshop, items: list[Item], trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engines, "DEFAULT", str(trained))
        monkeypatch.setattr(engines, "packaged", lambda: [str(trained)])
        (system,) = make_systems(["engine"], workshop)
        system.prepare(items)
        answers = system.answer(items)
        captioner = TrainedCaptioner.load(trained)
        own = Engine(workshop.library, FakeEncoder(), captioners=[captioner]).query([i.picture.path for i in items])
        # Grids are kept in half precision, so a caption may differ where two were as good.
        same = np.mean([answer.text == result.final.prompt for answer, result in zip(answers, own, strict=True)])
        assert same >= 0.9
        assert system.fingerprint != make_systems(["engine-no-captioner"], workshop)[0].fingerprint


class TestCaptioners:
    def test_alone_and_told_neighbours(
        self, workshop: Workshop, items: list[Item], trained: Path, loaded: Loaded
    ) -> None:
        alone, told = make_systems([str(trained), f"{trained}+neighbours"], workshop)
        assert (alone.name, told.name) == ("mine", "mine+neighbours")
        assert (alone.encoders, told.encoders) == (frozenset(), workshop.composers)
        for system in (alone, told):
            system.prepare(items)
        captioner = TrainedCaptioner.load(trained)
        images = [workshop.open(item) for item in items]
        own = captioner.caption(images, num_beams=5, max_tokens=30)
        said = [answer.text for answer in alone.answer(items)]
        assert np.mean([text == found[0].prompt for text, found in zip(said, own, strict=True)]) >= 0.9
        assert all(said)
        assert loaded.grids[0].encoded == len(items)
        assert [answer.text for answer in told.answer(items)] != said
        assert len(loaded.grids) == 2  # one for both systems, and the test's own

    def test_other_captioners_see_pictures(
        self, workshop: Workshop, items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "some-blip"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        sizes: list[tuple[int, int]] = []

        class Other:
            def caption(self, images: Sequence, **asked: object) -> list[list]:
                sizes.extend(image.size for image in images)
                return [[] for _ in images]

        monkeypatch.setattr("unprompt.captioners.registry.load_captioner", lambda name, device: Other())
        (system,) = make_systems([f"blip:{folder}"], workshop)
        system.prepare(items)
        assert {answer.text for answer in system.answer(items[:3])} == {""}
        assert sizes == [(24, 24)] * 3
        before = system.fingerprint
        (folder / "model.safetensors").write_bytes(b"other weights")
        from unprompt.systems.weights import weights_key

        weights_key.cache_clear()
        assert make_systems([f"blip:{folder}"], workshop)[0].fingerprint != before


class TestNames:
    def test_labels(self, workshop: Workshop, trained: Path) -> None:
        names = [system.name for system in make_systems(["first=rrf", "rrf", f"x={trained}+neighbours"], workshop)]
        assert names == ["first", "rrf", "x"]

    def test_every_known_one_but_hubs_can_be_made(self, workshop: Workshop) -> None:
        names = [name for name in known_systems() if name not in ("ofa", "blip")]
        assert len(make_systems(names, workshop)) == len(names)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["enigne"], "unknown system 'enigne': use neighbours, prompts"),
            (["neighbours+neighbours"], "unknown system 'neighbours\\+neighbours'"),
            (["rrf", "rrf"], "two systems are called 'rrf'"),
            ([], "no system to evaluate"),
            (["."], "no captioner '.': give a folder that `unprompt train` wrote"),
            (["ofa"], "HF_HUB_OFFLINE"),
        ],
    )
    def test_mistakes(
        self, workshop: Workshop, names: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(UnpromptError, match=message) as caught:
            make_systems(names, workshop)
        assert "\n" not in str(caught.value)


class TestFingerprints:
    def test_a_changed_library_is_another(self, library: Library, tmp_path: Path, entries: list[Entry]) -> None:
        def prints(root: Path) -> list[str]:
            names = [*NAMES, "lstm"]
            return [system.fingerprint for system in make_systems(names, Workshop(Library.open(root), tmp_path))]

        before = prints(library.path)
        assert prints(library.path) == before
        assert len({*before}) == len(before)
        from unprompt.builders.vocabulary import add_fragments

        add_fragments(library.path, [Fragment("charcoal", "medium", "more.txt")], FakeEncoder())
        after = prints(library.path)
        assert all(a != b for a, b in zip(before[:-1], after[:-1], strict=True))
        assert before[-1] == after[-1]  # a captioner that is told nothing does not look into the library

    def test_a_changed_search_is_another(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        before = [system.fingerprint for system in make_systems(["rrf", "composed"], workshop)]
        for module in ("retrieval", "engines"):
            monkeypatch.setattr(f"unprompt.systems.{module}.code_version", lambda *places: "changed")
        assert not {*before} & {system.fingerprint for system in make_systems(["rrf", "composed"], workshop)}


class TestWholeEvaluation:
    METRICS = ("rouge-l", "modifier-jaccard", "fragment-recall@10")

    def plan(self, *systems: str, **more: object) -> Plan:
        return Plan(systems, self.METRICS, statistics=Statistics(resamples=20, permutations=20), **more)  # type: ignore[arg-type]

    def test_each_picture_is_encoded_once_whatever_the_systems(
        self, library: Library, new: list[Entry], tmp_path: Path, loaded: Loaded, trained: Path
    ) -> None:
        plan = self.plan(*NAMES, str(trained), f"{trained}+neighbours")
        outcome = evaluate_library(library, {"new": new}, plan, tmp_path / "cache")
        assert sum(encoder.images_encoded for encoder in loaded.encoders) == 20
        assert sum(grid.encoded for grid in loaded.grids) == 20
        assert outcome.results["encodings"]["fake"]["encoded_now"] == 20
        assert outcome.results["encodings"]["tiny"]["encoded_now"] == 20
        systems = outcome.results["systems"]
        assert systems["composed"]["cost"]["texts_encoded_per_picture"] > 0
        assert systems["rrf"]["cost"]["texts_encoded_per_picture"] == 0
        assert "fragment-recall@10" in systems["composed"]["metrics"]
        assert "fragment-recall@10" not in systems["rrf"]["metrics"]

    def test_a_second_run_loads_nothing_and_says_the_same(
        self, library: Library, new: list[Entry], tmp_path: Path, loaded: Loaded, trained: Path
    ) -> None:
        plan = self.plan("rrf", "composed", str(trained))
        first = evaluate_library(library, {"new": new}, plan, tmp_path / "cache").results
        count = len(loaded.encoders), len(loaded.grids)
        again = evaluate_library(library, {"new": new[::-1]}, plan, tmp_path / "cache").results
        assert (len(loaded.encoders), len(loaded.grids)) == count
        assert {**again, "encodings": 0} == {**first, "encodings": 0}
        assert again["encodings"] == {"fake": {"pictures": 20, "encoded_now": 0, "seconds_now": 0.0}}

    def test_fresh_runs_agree_to_the_digit(self, library: Library, new: list[Entry], tmp_path: Path) -> None:
        plan = self.plan("rrf", "interrogator-fast")
        runs = []
        for name in ("a", "b"):
            results = evaluate_library(library, {"new": new}, plan, tmp_path / name).results
            for system in results["systems"].values():
                system.pop("cost")
            runs.append({**results, "encodings": 0})
        assert runs[0] == runs[1]

    def test_pictures_that_cannot_be_decoded(self, library: Library, new: list[Entry], tmp_path: Path) -> None:
        torn = tmp_path / "torn.png"
        torn.write_bytes(b"no picture")
        more = [*new, Entry("a torn thing", Picture(str(torn)))]
        results = evaluate_library(library, {"new": more}, self.plan("rrf"), tmp_path / "cache").results
        assert results["pictures"] == 20
        assert results["split"]["skipped"] == {"undecodable": 1}
        with pytest.raises(EvaluationError, match="none of 1 pictures can be decoded"):
            evaluate_library(library, {"new": more[-1:]}, self.plan("rrf"), tmp_path / "cache")

    def test_a_judge(self, library: Library, new: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        judge = FakeEncoder(salt="judge")
        monkeypatch.setattr("unprompt.systems.evaluate.load_encoder", lambda name, device: judge)
        plan = Plan(
            ["rrf", "prompts"], ["clipscore"], statistics=Statistics(resamples=9, permutations=9), judge="other"
        )
        results = evaluate_library(library, {"new": new}, plan, tmp_path / "cache").results
        assert results["metrics"]["clipscore"]["title"] == "clipscore (fakejudge)"
        assert judge.images_encoded == 20

    def test_cases_of_an_unknown_system_are_refused_at_once(
        self, library: Library, new: list[Entry], tmp_path: Path, loaded: Loaded
    ) -> None:
        with pytest.raises(EvaluationError, match="no cases of 'x' can be shown: name one of rrf"):
            evaluate_library(library, {"new": new}, self.plan("rrf", cases="x"), tmp_path / "cache")
        assert not loaded.encoders
