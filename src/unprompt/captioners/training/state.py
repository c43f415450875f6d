"""Where a run stands, on disk: written so that a run killed at any moment resumes as if it never had been."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from unprompt.captioners.curves import Row
from unprompt.captioners.interface import CaptionerError
from unprompt.index.files import write_durably

STATE = "state.json"
_NUMBERED = re.compile(r"\d{8}\.(safetensors|optimizer\.pt)")


@dataclass(slots=True)
class RunState:
    """Everything that changes in a run besides the weights and the optimizer.

    Attributes:
        step: steps done.
        epoch: the epoch in hand, from 0.
        batch: batches of this epoch that are done.
        loss: summed training loss since the last row of the curve, in nats.
        tokens: how many tokens it counts.
        best: the lowest validation loss so far.
        best_epoch: the epoch it came from.
        finished: no epoch is left, or patience ran out.
        micro_batch: captions that went through the model together in the end; 0 for whole batches.
        rows: the curve.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    tokens: int = 0
    best: float = float("inf")
    best_epoch: int = -1
    finished: bool = False
    micro_batch: int = 0
    rows: list[Row] = field(default_factory=list)


def save_state(
    folder: Path, state: RunState, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], run: Mapping[str, Any]
) -> None:
    """Writes a resumable checkpoint; ``state.json``, which names its weights, comes last, and then old ones go.

    Args:
        folder: made if it is missing.
        state: where the run stands.
        weights: what training changes, by name.
        optimizer: its state dict.
        run: what must be the same for a run to go on: the configuration, and a hash of the data.
    """
    name = f"{state.step:08d}"
    contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    write_durably(folder / f"{name}.safetensors", lambda file: file.write(save(contiguous)))
    write_durably(folder / f"{name}.optimizer.pt", lambda file: torch.save(dict(optimizer), file))
    facts = json.dumps({"run": run, "state": asdict(state)}).encode()
    write_durably(folder / STATE, lambda file: file.write(facts))
    for path in folder.iterdir():
        if _NUMBERED.fullmatch(path.name) and not path.name.startswith(name):
            path.unlink()


def load_state(folder: Path, run: Mapping[str, Any]) -> tuple[RunState, dict[str, Tensor], dict[str, Any]] | None:
    """Reads what `save_state` wrote: state, weights, optimizer state; None where there is nothing yet.

    Raises:
        CaptionerError: the folder is of another run, or damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in facts["state"].pop("rows")]
        state = RunState(**facts["state"], rows=rows)
        theirs = facts["run"]
        name = f"{state.step:08d}"
        weights = load((folder / f"{name}.safetensors").read_bytes())
        optimizer = torch.load(folder / f"{name}.optimizer.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise CaptionerError(f"{folder} cannot be resumed ({detail}): delete it to begin again") from None
    ours = json.loads(json.dumps(run))
    changed = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if changed:
        raise CaptionerError(f"{folder} is of a run with another {', '.join(changed)}: give another --out or delete it")
    return state, weights, optimizer
