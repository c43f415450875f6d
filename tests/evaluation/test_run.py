"""The evaluation of systems whose answers are known beforehand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeEncoder, colour_picture
from unprompt.evaluation import page, plots, scoring
from unprompt.evaluation.bootstrap import bootstrap, compare
from unprompt.evaluation.cache import RecordStore
from unprompt.evaluation.items import Item
from unprompt.evaluation.metrics import EvaluationError, Metric, load_metric
from unprompt.evaluation.report import write_report
from unprompt.evaluation.results import to_results
from unprompt.evaluation.run import Evaluation, evaluate
from unprompt.evaluation.scoring import Judge, Statistics, choose_metrics
from unprompt.evaluation.systems import BATCH, Answer, System, answer_all
from unprompt.evaluation.tables import to_csv, to_markdown, to_terminal
from unprompt.types import Picture

COLOURS = ("red", "green", "blue", "yellow")
METRICS = ["rouge-l", "modifier-jaccard", "bleu-1", "length"]
QUICK = Statistics(resamples=50, permutations=100)


class Saying:
    """Says the true prompt of some pictures, and a fixed text of the others."""

    def __init__(self, name: str, right: Sequence[str] = COLOURS, ranks: bool = False) -> None:
        self.name = name
        self.fingerprint = f"saying-{name}"
        self.encoders = frozenset({"fake"})
        self.texts_encoded = 0
        self.answered: list[str] = []
        self.prepared = 0
        self._right, self._ranks = right, ranks

    def prepare(self, items: Sequence[Item]) -> None:
        self.prepared += 1

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        self.texts_encoded += 3 * len(items)
        self.answered += [item.key for item in items]
        texts = [item.prompt if item.prompt.split()[1] in self._right else "nothing" for item in items]
        return [Answer(text, ("other", text) if self._ranks else ()) for text in texts]


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    found = []
    for i in range(40):
        colour = COLOURS[i % 4]
        path = colour_picture(tmp_path / f"{colour}-{i:02d}.png", colour, seed=i)
        prompt = f"a {colour} thing{' in the morning' * (i % 2)}, style {i % 8}"
        found.append(Item(Picture(str(path)), prompt, ("one", "two")[i % 2], f"{i:064d}"))
    return found


@pytest.fixture
def systems() -> list[Saying]:
    return [Saying("some", COLOURS[:2]), Saying("most", COLOURS[:3]), Saying("none", ())]


def run(
    items: Sequence[Item], systems: Sequence[System], cache: Path, metrics: Sequence[str] = METRICS, **more: Any
) -> Evaluation:
    return evaluate(items, systems, [load_metric(name) for name in metrics], cache, QUICK, **more)


class TestAnswers:
    def test_every_picture_is_answered_once(self, items: list[Item], tmp_path: Path) -> None:
        system, store = Saying("all"), RecordStore(tmp_path / "answers")
        steps: list[tuple[str, int, int]] = []
        twice = [*items, items[0]]
        answers = answer_all(system, twice, store, lambda *step: steps.append(step))
        assert [answer.text for answer in answers] == [item.prompt for item in twice]
        assert sorted(system.answered) == sorted(item.key for item in items)
        assert steps[-1] == ("all", 40, 40)
        assert all(answer.texts == 3 and answer.seconds >= 0 and answer.memory > 2**20 for answer in answers)

    def test_known_answers_need_no_system(self, items: list[Item], tmp_path: Path) -> None:
        first = answer_all(Saying("all", ranks=True), items, RecordStore(tmp_path), lambda *step: None)
        idle = Saying("all", ())
        again = answer_all(idle, items, RecordStore(tmp_path), lambda *step: None)
        assert again == first
        assert (idle.prepared, idle.answered) == (0, [])

    def test_a_killed_run_goes_on_where_it_stopped(self, items: list[Item], tmp_path: Path) -> None:
        class Dying(Saying):
            def answer(self, items: Sequence[Item]) -> list[Answer]:
                if len(self.answered) >= 2 * BATCH:
                    raise KeyboardInterrupt
                return super().answer(items)

        with pytest.raises(KeyboardInterrupt):
            answer_all(Dying("all"), items, RecordStore(tmp_path), lambda *step: None)
        fresh = Saying("all")
        answers = answer_all(fresh, items, RecordStore(tmp_path), lambda *step: None)
        assert len(fresh.answered) == len(items) - 2 * BATCH
        assert [answer.text for answer in answers] == [item.prompt for item in items]


class TestEvaluation:
    def test_scores_are_the_metrics_own(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        found = run(items, systems, tmp_path)
        truth = [item.prompt for item in items]
        for system in systems:
            said = [answer.text for answer in found.answers[system.name]]
            for name in METRICS:
                alone = load_metric(name)(said, truth)
                scored = found.scored[system.name][name]
                assert scored.scores.corpus == alone.corpus
                groups = [item.group for item in items]
                interval = bootstrap(alone, resamples=50, groups=groups, rng=0)
                assert found.scorer.interval(scored) == [interval.value, interval.low, interval.high]
        assert found.best(load_metric("rouge-l")) == "most"
        assert found.best(load_metric("length")) is None

    def test_comparisons_are_the_bootstraps_own(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        found = run(items, systems, tmp_path)
        results = to_results(found, {})
        rows = [each for each in results["comparisons"] if each["metric"] == "bleu-1"]
        assert [(row["best"], row["other"]) for row in rows] == [("most", "some"), ("most", "none")]
        truth = [item.prompt for item in items]
        said = {name: [answer.text for answer in answers] for name, answers in found.answers.items()}
        own = compare(
            *(load_metric("bleu-1")(said[name], truth) for name in ("most", "some")),
            resamples=50, permutations=100, groups=[item.group for item in items],
        )  # fmt: skip
        assert rows[0]["difference"] == pytest.approx(own.difference)
        assert rows[0]["p"] == pytest.approx(own.p)

    def test_breakdowns(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        results = to_results(run(items, systems, tmp_path), {})
        some = results["systems"]["some"]
        assert {name: part["pictures"] for name, part in some["by_source"].items()} == {"one": 20, "two": 20}
        assert {name: part["pictures"] for name, part in some["by_length"].items()} == {"4-7": 20, "8-15": 20}
        one = [item for item in items if item.source == "one"]
        assert some["by_source"]["one"]["metrics"]["rouge-l"] == pytest.approx(
            np.mean([item.prompt.split()[1] in COLOURS[:2] for item in one])
        )
        assert some["by_source"]["one"]["low"] <= some["by_source"]["one"]["metrics"]["rouge-l"]

    def test_a_second_run_computes_nothing(
        self, items: list[Item], systems: list[Saying], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = to_results(run(items, systems, tmp_path), {})

        def never(*arguments: object, **more: object) -> None:
            raise AssertionError("computed again")

        monkeypatch.setattr(Metric, "__call__", never)
        monkeypatch.setattr(scoring, "bootstrap", never)
        monkeypatch.setattr(scoring, "compare", never)
        idle = [Saying("some"), Saying("most"), Saying("none")]
        assert to_results(run(items, idle, tmp_path), {}) == first
        assert not any(system.answered for system in idle)

    def test_other_answers_are_scored_anew(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        before = run(items, systems[:1], tmp_path).scored["some"]["rouge-l"].scores.corpus
        better = Saying("some")
        better.fingerprint = "trained again"
        assert run(items, [better], tmp_path).scored["some"]["rouge-l"].scores.corpus > before
        changed = [replace(item, prompt="all else") for item in items]
        assert run(changed, [better], tmp_path).scored["some"]["rouge-l"].scores.corpus == pytest.approx(0.0)

    def test_rankings_are_only_asked_of_those_that_rank(self, items: list[Item], tmp_path: Path) -> None:
        found = run(items, [Saying("ranks", ranks=True), Saying("not")], tmp_path, ["mrr", "recall@1"])
        assert found.scored["ranks"]["mrr"].scores.corpus == 0.5
        assert found.scored["ranks"]["recall@1"].scores.corpus == 0.0
        assert found.scored["not"] == {}
        results = to_results(found, {})
        assert results["systems"]["not"]["metrics"] == {}
        assert "mrr" in to_terminal(results)

    def test_mistakes(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="two systems are called 'some'"):
            run(items, [*systems, Saying("some")], tmp_path)
        with pytest.raises(EvaluationError, match="nothing to evaluate"):
            run([], systems, tmp_path)


class TestJudge:
    def judge(self, items: Sequence[Item], encoder: FakeEncoder, force: bool = False) -> Judge:
        return Judge(encoder, encoder.encode_texts([item.prompt for item in items]), force)

    def test_an_encoder_that_composed_nothing(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        judge = self.judge(items, FakeEncoder(salt="judge"))
        found = run(items, systems, tmp_path, ["clipscore"], judge=judge)
        assert found.best(load_metric("clipscore")) == "most"
        assert "fakejudge" in found.scored["most"]["clipscore"].scores.name

    def test_circularity_is_refused_before_anything_is_answered(
        self, items: list[Item], systems: list[Saying], tmp_path: Path
    ) -> None:
        with pytest.raises(EvaluationError, match="by 'fake' is circular, that encoder composed the prompts of some"):
            run(items, systems, tmp_path, ["clipscore"], judge=self.judge(items, FakeEncoder()))
        assert not systems[0].answered
        forced = run(items, systems, tmp_path, ["clipscore"], judge=self.judge(items, FakeEncoder(), force=True))
        assert "CIRCULAR" in forced.scored["most"]["clipscore"].scores.note

    def test_without_a_judge(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="clipscore needs a judge"):
            run(items, systems, tmp_path, ["clipscore"])


class TestChoice:
    def test_default(self) -> None:
        metrics, left_out = choose_metrics(["default"])
        names = [metric.name for metric in metrics]
        assert names[0] == "sentence-cosine"
        assert "mrr" not in names
        assert "clipscore" not in names
        assert set(left_out) <= {"meteor", "cider", "bertscore"}
        with_all = [metric.name for metric in choose_metrics(["default"], judged=True, findable=True)[0]]
        assert {"mrr", "recall@10", "clipscore"} <= {*with_all}

    def test_order_and_repetition(self) -> None:
        names = [metric.name for metric in choose_metrics(["rouge-l", "default", "rouge-l"])[0]]
        assert names[:2] == ["rouge-l", "sentence-cosine"]
        assert len(names) == len(set(names))

    def test_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scoring, "find_spec", lambda name: None if name == "sacrebleu" else True)
        metrics, left_out = choose_metrics(["default"])
        assert "bleu-4" not in [metric.name for metric in metrics]
        assert left_out["bleu-4"] == "bleu-4 needs sacrebleu: pip install 'unprompt[evaluation]'"
        with pytest.raises(EvaluationError, match="bleu-4 needs sacrebleu"):
            choose_metrics(["bleu-4"])

    def test_mistakes(self) -> None:
        with pytest.raises(EvaluationError, match="unknown metric 'bleu4'"):
            choose_metrics(["bleu4"])
        with pytest.raises(EvaluationError, match="no metric is left"):
            choose_metrics([])


class TestReport:
    @pytest.fixture
    def done(self, items: list[Item], systems: list[Saying], tmp_path: Path) -> tuple[Evaluation, dict[str, Any]]:
        evil = replace(items[0], prompt="a red <script>alert(1)</script> & | thing", source="http://a/b<c>|d")
        evaluation = run([evil, *items[1:]], systems, tmp_path / "cache")
        return evaluation, to_results(evaluation, {"command": ["unprompt", "evaluate", "a b"], "left_out": {}})

    def test_files(self, done: tuple[Evaluation, dict[str, Any]], tmp_path: Path) -> None:
        write_report(*done, tmp_path / "out")
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == [
            "answers.jsonl", "by-length.png", "by-source.png", "report.html", "results.csv", "results.json",
            "results.md", "systems.png",
        ]  # fmt: skip
        assert json.loads((tmp_path / "out" / "results.json").read_text()) == done[1]
        first = {name: (tmp_path / "out" / name).read_bytes() for name in names}
        write_report(*done, tmp_path / "out")
        assert first == {name: (tmp_path / "out" / name).read_bytes() for name in names}

    def test_answers(self, done: tuple[Evaluation, dict[str, Any]], tmp_path: Path) -> None:
        write_report(*done, tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
        assert len(lines) == 40
        assert lines[1]["truth"].startswith("a green thing")
        assert lines[1]["systems"]["some"] == {
            "answer": lines[1]["truth"],
            "values": {"rouge-l": 1.0, "modifier-jaccard": 1.0, "length": float(len(lines[1]["truth"].split()))},
        }

    def test_csv(self, done: tuple[Evaluation, dict[str, Any]]) -> None:
        rows = list(csv.DictReader(io.StringIO(to_csv(done[1]))))
        (row,) = [r for r in rows if (r["system"], r["metric"], r["part"]) == ("most", "rouge-l", "all")]
        assert float(row["value"]) == done[1]["systems"]["most"]["metrics"]["rouge-l"]["value"]
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
        assert {r["of"] for r in rows if r["part"] == "length"} == {"4-7", "8-15"}

    def test_tables(self, done: tuple[Evaluation, dict[str, Any]]) -> None:
        first, second, third, *_ = to_terminal(done[1]).splitlines()
        assert first.split() == ["some", "most", "none"]
        assert second.split()[0] == "rouge-l"
        assert second.split()[2].endswith("*")
        assert third.count("-") == 3
        markdown = to_markdown(done[1])
        assert "| rouge-l | 0." in markdown
        assert "`unprompt evaluate 'a b'`" in markdown
        assert "http://a/b<c>\\|d" in markdown
        assert "not corrected for the number of tests" in markdown

    def test_narrow_terminals(self, done: tuple[Evaluation, dict[str, Any]]) -> None:
        whole = to_terminal(done[1]).splitlines()
        width = len(whole[0]) - 1
        names = {"some", "most", "none"}
        for limit, wanted in ((width, [["some", "most"], ["none"]]), (10, [["some"], ["most"], ["none"]])):
            rows = [line.split() for line in to_terminal(done[1], limit).splitlines()]
            assert [row for row in rows if row and {*row} <= names] == wanted
        assert max(map(len, to_terminal(done[1], width).splitlines()[:-1])) <= width
        assert to_terminal(done[1], 1000).splitlines() == whole

    def test_the_page_is_whole_and_escaped(self, done: tuple[Evaluation, dict[str, Any]]) -> None:
        html = page.render_page(*done)
        assert "<script>" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; | thing" in html
        assert html.count("data:image/jpeg;base64,") == 40
        assert "20 best cases of most" in html
        assert "20 worst cases of most" in html
        assert 'src="http' not in html
        assert "20 best cases of some" in page.render_page(*done, "some")
        with pytest.raises(EvaluationError, match="no cases of 'other'"):
            page.render_page(*done, "other")

    def test_a_picture_that_is_gone(self, done: tuple[Evaluation, dict[str, Any]], items: list[Item]) -> None:
        Path(items[1].picture.path).unlink()
        assert page.render_page(*done).count("cannot be read any more") == 1

    def test_without_plots(
        self, done: tuple[Evaluation, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        write_report(*done, tmp_path / "out")
        assert "plots need matplotlib: pip install 'unprompt[evaluation]'" in caplog.messages[0]
        assert (tmp_path / "out" / "report.html").exists()
        assert not (tmp_path / "out" / "systems.png").exists()

    def test_plots_are_pictures(self, done: tuple[Evaluation, dict[str, Any]]) -> None:
        drawn = plots.draw_plots(done[1])
        assert all(data.startswith(b"\x89PNG") for data in drawn.values())
