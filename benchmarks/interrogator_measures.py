"""What is measured of both sides: ranking, `best`, and batches of `fast` and `classic`. Everything runs in turn."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interrogator_pictures import Subject
from interrogator_worker import Worker
from unprompt.search.budget import TokenBudget
from unprompt.search.product import ALONE
from unprompt.types import Embeddings, Encoder

TOP = 100
DEEP = 2048
"""What CI's `best` takes from its ranking; it may keep 37 of a chunk."""
BATCH = 64
TOLERANCE = 1e-6
"""Cosines this near are a tie: what float32 can tell apart."""

REST = 0.1
"""Seconds before a turn of ranking. When one side has answered, its idle threads go on spinning for some milliseconds
(CI's spent 3 to 8 ms of CPU so), on cores that the other side is timed on."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Both sides and what they are given.

    Attributes:
        ci: CI's process.
        ours: our process.
        encoder: scores the finished prompts of both.
        budget: counts their tokens.
        features: (Q, D), the pictures' embeddings.
        subjects: the pictures and their captions, row for row.
        count: how many of them are compared; the rest only fill a batch.
    """

    ci: Worker
    ours: Worker
    encoder: Encoder
    budget: TokenBudget
    features: Embeddings
    subjects: Sequence[Subject]
    count: int

    def captions(self, rows: Sequence[int]) -> list[str]:
        return [self.subjects[row].caption for row in rows]

    def score(self, row: int, answer: Figures) -> float:
        """The cosine of an answer's prompt with its picture."""
        return float(self.encoder.encode_texts([answer["prompt"]])[0] @ self.features[row])

    def scores(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(Q,) the cosine of each prompt with its picture; the first Q pictures."""
        cosines: NDArray[np.float32] = (self.encoder.encode_texts(prompts) * self.features[: len(prompts)]).sum(axis=1)
        return cosines


def measure_ranking(bench: Bench, table: Path, labels: Sequence[str], rounds: int) -> Figures:
    """The top 100 of both against brute force, and what a picture takes; `rounds` turns over the pictures."""
    sides = {"ci": bench.ci, "ours": bench.ours}
    cuts = np.linspace(0, bench.count, rounds + 1).astype(int).tolist()
    found: dict[str, list[list[str]]] = {"ci": [], "ours": []}
    spent: dict[str, list[Spent]] = {"ci": [], "ours": [], "ours in batches": []}
    # What is made once is made before, as CI made its merged table when it started: copies in fewer bits, above all.
    bench.ours.ask("rank", rows=[0] * (ALONE + 1), k=TOP)
    bench.ours.ask("rank", rows=list(range(BATCH)), k=TOP, batched=True)
    for start, stop in pairwise(cuts):
        rows = list(range(start, stop))
        for name, worker in sides.items():
            answer = rested(worker, rows=rows)
            found[name] += answer["result"]
            spent[name].append(Spent.of(answer, len(rows)))
        batch = rested(bench.ours, rows=list(range(BATCH)), batched=True)
        spent["ours in batches"].append(Spent.of(batch, BATCH))
    found["ours in batches"] = batch["result"][: bench.count]
    every = list(range(bench.count))
    deep = {name: worker.ask("rank", rows=every, k=DEEP)["result"] for name, worker in sides.items()}
    matrix = np.load(table, allow_pickle=False).astype(np.float64)
    return {
        "pictures": bench.count,
        "terms": len(labels),
        "one": versus(spent["ci"], spent["ours"]),
        "in batches": versus(spent["ci"], spent["ours in batches"]),
        "of the true top 100": overlaps(bench.features, matrix, labels, found, TOP),
        "of the true top 2048": overlaps(bench.features, matrix, labels, deep, DEEP),
    }


def rested(worker: Worker, **arguments: Any) -> Figures:
    """A turn of ranking, after a rest."""
    time.sleep(REST)
    answer: Figures = worker.ask("rank", k=TOP, **arguments)
    return answer


def overlaps(
    queries: Embeddings, matrix: NDArray[np.float64], labels: Sequence[str], found: dict[str, list[list[str]]], k: int
) -> dict[str, list[int]]:
    """How many of each top k belong there by brute force, which is exact (float64) and allows ties.

    A label that the table holds twice may be found twice, and no oftener. CI's blank label is no term, and belongs
    nowhere.
    """
    blank = np.array([not label.strip() for label in labels])
    places: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        places.setdefault(label, []).append(row)
    counts: dict[str, list[int]] = {name: [] for name in found}
    for i in range(len(found["ci"])):
        scores = matrix @ queries[i].astype(np.float64)  # (111867,)
        scores[blank] = -np.inf
        belongs = scores >= np.partition(scores, -k)[-k] - TOLERANCE
        for name, texts in found.items():
            times = Counter(texts[i][:k])
            counts[name].append(sum(min(n, int(belongs[places[text]].sum())) for text, n in times.items()))
    return counts


def measure_best(bench: Bench, known: Path, fresh: int, report: Callable[[str], None]) -> Figures:
    """`best` of both, one picture at a time; the first `fresh` in turn, CI's others from `known` where they are."""
    cached = read_known(known)
    ci: list[Figures] = []
    ours: list[Figures] = []
    ask_one(bench.ours, bench, BATCH - 1)  # makes what is made once, such as the words of every term
    for row, subject in enumerate(bench.subjects[: bench.count]):
        mine = ask_one(bench.ours, bench, row)
        theirs = cached.get((subject.picture, subject.caption))
        if row < fresh or theirs is None:
            again, theirs = theirs, ask_one(bench.ci, bench, row)
            if again is None:
                write_known(known, subject, theirs)
            elif again["prompt"] != theirs["prompt"]:
                report(f"{subject.picture}: CI's prompt is not that of an earlier run: {again['prompt']}")
        ci.append(theirs)
        ours.append(mine)
        both = f"CI {bench.score(row, theirs):.4f}, ours {bench.score(row, mine):.4f}"
        report(f"{row + 1}/{bench.count} {both}: {mine['prompt']}")
    rows = list(range(bench.count))
    batch = bench.ours.ask("compose", mode="best", rows=rows, captions=bench.captions(rows), batched=True)
    figures = compare_best(bench, ci, ours, fresh)
    figures["ours in one batch"] = {
        "seconds": batch["seconds"] / bench.count,
        "same prompts": sum(a == b["prompt"] for a, b in zip(batch["result"], ours, strict=True)),
    }
    return figures


def compare_best(bench: Bench, ci: Sequence[Figures], ours: Sequence[Figures], fresh: int) -> Figures:
    """Scores, text encodes and seconds of `best`; seconds are of the pictures that both did in turn."""
    prompts = {"ci": [each["prompt"] for each in ci], "ours": [each["prompt"] for each in ours]}
    scores = {name: bench.scores(each) for name, each in prompts.items()}
    encodes = {"ci": [each["encodes"] for each in ci], "ours": [each["encodes"] for each in ours]}
    spent = {name: [Spent.of(each, 1) for each in own[:fresh]] for name, own in (("ci", ci), ("ours", ours))}
    gained = scores["ours"] - scores["ci"]
    return {
        "pictures": len(ci),
        "in turn": fresh,
        "as good": int((gained >= -TOLERANCE).sum()),
        "mean score": {name: float(each.mean()) for name, each in scores.items()},
        "least gain": float(gained.min()),
        "mean encodes": {name: float(np.mean(each)) for name, each in encodes.items()},
        "encodes ratio": sum(encodes["ci"]) / sum(encodes["ours"]),
        "least encodes ratio": min(a / b for a, b in zip(encodes["ci"], encodes["ours"], strict=True)),
        "one": versus(spent["ci"], spent["ours"]) if fresh else None,
        "over the limit": {name: len(each) - sum(bench.budget.fits(each)) for name, each in prompts.items()},
        "rows": [
            {
                "picture": subject.picture,
                "caption": subject.caption,
                **{name: {"prompt": prompts[name][i], "score": float(scores[name][i])} for name in prompts},
                "encodes": {name: encodes[name][i] for name in encodes},
                "seconds": {"ci": ci[i]["seconds"] if i < fresh else None, "ours": ours[i]["seconds"]},
            }
            for i, subject in enumerate(bench.subjects[: bench.count])
        ],
    }


def measure_batches(bench: Bench, mode: str, rounds: int) -> Figures:
    """A batch of 64 pictures against CI's one by one."""
    rows = list(range(BATCH))
    answers: dict[str, list[Figures]] = {"ci": [], "ours": []}
    bench.ours.ask("compose", mode=mode, rows=[0], captions=bench.captions([0]))  # as before `best`
    for _ in range(rounds):
        arguments = {"mode": mode, "rows": rows, "captions": bench.captions(rows)}
        answers["ci"].append(bench.ci.ask("compose", **arguments))
        answers["ours"].append(bench.ours.ask("compose", **arguments, batched=True))
    spent = {name: [Spent.of(each, BATCH) for each in own] for name, own in answers.items()}
    return {
        **versus(spent["ci"], spent["ours"]),
        "mean score": {name: float(bench.scores(own[0]["result"]).mean()) for name, own in answers.items()},
        "example": {name: own[0]["result"][0] for name, own in answers.items()},
    }


@dataclass(frozen=True)
class Spent:
    """What one picture took: seconds, and seconds of CPU, which other programs on the machine disturb less."""

    seconds: float
    cpu: float

    @classmethod
    def of(cls, answer: Figures, pictures: int) -> Spent:
        return cls(answer["seconds"] / pictures, answer["cpu"] / pictures)


def versus(ci: Sequence[Spent], ours: Sequence[Spent]) -> Figures:
    """The median of each side, and how many times longer CI took, turn by turn."""
    ratios = [theirs.seconds / mine.seconds for theirs, mine in zip(ci, ours, strict=True)]
    return {
        "seconds": {"ci": median(each.seconds for each in ci), "ours": median(each.seconds for each in ours)},
        "cpu": {"ci": median(each.cpu for each in ci), "ours": median(each.cpu for each in ours)},
        "ratio": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
        "cpu ratio": median(theirs.cpu / mine.cpu for theirs, mine in zip(ci, ours, strict=True)),
    }


def ask_one(worker: Worker, bench: Bench, row: int) -> Figures:
    answer: Figures = worker.ask("compose", mode="best", rows=[row], captions=bench.captions([row]))
    return {"prompt": answer["result"][0], **{name: answer[name] for name in ("seconds", "cpu", "encodes")}}


def read_known(path: Path) -> dict[tuple[str, str], Figures]:
    """CI's earlier results by picture and caption; none when the file is not there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {(row["picture"], row["caption"]): row for row in rows}


def write_known(path: Path, subject: Subject, figures: Figures) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"picture": subject.picture, "caption": subject.caption, **figures}) + "\n")
