"""The final prompts of a batch: ranked or composed in the mode that was asked for, or kept where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from unprompt.search.evidence import Evidence
from unprompt.search.fusion import Fusion
from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.modes.common import measure
from unprompt.search.policy import Policy
from unprompt.search.settings import DEFAULT, Settings
from unprompt.types import Candidate


def compose_finals(
    task: ComposeInput, evidence: Sequence[Evidence], settings: Settings, fusion: Fusion
) -> list[Candidate]:
    """Makes the final prompt of each of Q pictures.

    By default the true prompt of a picture that the library holds is kept, but for what the policy forbids, for it is
    not to be improved upon. Where the policy leaves nothing of it, the picture is answered like any other.

    Args:
        task: what to compose from.
        evidence: for each picture.
        settings: the mode, and what stands around a prompt; scores are those of the prompt without it.
        fusion: what candidates are made with and ordered by.
    """
    if settings.mode != DEFAULT or settings.subject is not None:
        finals = MODES[settings.mode](task)
    else:
        finals = [Candidate("", 0.0)] * len(evidence)
        known = zip(evidence, task.subjects, strict=True)
        kept = [
            each.held and subject is not None and bool(task.allowed(subject.text).strip()) for each, subject in known
        ]
        unknown = partial(_best, settings, fusion) if settings.rerank else _extend
        for answer, wanted in ((_keep, True), (unknown, False)):
            rows = [row for row, each in enumerate(kept) if each == wanted]
            if rows:
                part = replace(task, queries=task.queries[rows], subjects=[task.subjects[row] for row in rows])
                for row, final in zip(rows, answer(part, [evidence[row] for row in rows]), strict=True):
                    finals[row] = final
    return [_finished(final, settings.policy) for final in finals]


def _best(settings: Settings, fusion: Fusion, task: ComposeInput, evidence: Sequence[Evidence]) -> list[Candidate]:
    ranked = fusion.rank(task, fusion.find(task, evidence, settings.ingredients))
    return [candidates[0] if candidates else Candidate("", 0.0) for candidates in ranked]


def _extend(task: ComposeInput, evidence: Sequence[Evidence]) -> list[Candidate]:
    return MODES[DEFAULT](task)


def _keep(task: ComposeInput, evidence: Sequence[Evidence]) -> list[Candidate]:
    return measure(task, [[(start,)] if start else [] for start in task.starts()])


def _finished(final: Candidate, policy: Policy) -> Candidate:
    return replace(final, prompt=policy.finish(final.prompt)) if policy.prefix or policy.suffix else final
