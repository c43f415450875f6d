"""The final prompts of a batch: composed in the mode that was asked for, or kept where they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unprompt.search.modes import MODES, ComposeInput
from unprompt.search.modes.common import measure
from unprompt.search.policy import Policy
from unprompt.search.settings import Settings
from unprompt.types import Candidate

DEFAULT = "default"


def compose_finals(task: ComposeInput, settings: Settings, held: Sequence[bool]) -> list[Candidate]:
    """Composes the final prompt of each of Q pictures.

    By default the true prompt of a picture that the library holds is kept, but for what the policy forbids, for it is
    not to be improved upon.

    Args:
        task: what to compose from.
        settings: the mode, and what stands around a prompt; scores are those of the prompt without it.
        held: for each picture whether the library holds that very file.
    """
    if settings.mode != DEFAULT or settings.subject is not None:
        finals = MODES[settings.mode](task)
    else:
        finals = [Candidate("", 0.0)] * len(held)
        for mode, wanted in ((_keep, True), (MODES[DEFAULT], False)):
            rows = [row for row, flag in enumerate(held) if flag == wanted]
            if rows:
                part = replace(task, queries=task.queries[rows], subjects=[task.subjects[row] for row in rows])
                for row, final in zip(rows, mode(part), strict=True):
                    finals[row] = final
    return [_finished(final, settings.policy) for final in finals]


def _keep(task: ComposeInput) -> list[Candidate]:
    return measure(task, [[(start,)] if start else [] for start in task.starts()])


def _finished(final: Candidate, policy: Policy) -> Candidate:
    return replace(final, prompt=policy.finish(final.prompt)) if policy.prefix or policy.suffix else final
