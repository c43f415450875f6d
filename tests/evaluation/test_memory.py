from __future__ import annotations

import os

import numpy as np
import pytest

from unprompt.evaluation import memory
from unprompt.evaluation.memory import PeakMemory


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are only forgotten on Linux")
def test_an_earlier_peak_is_forgotten() -> None:
    before = PeakMemory()
    held = np.ones(200_000_000, dtype=np.uint8)
    size, peak = held.nbytes, before.bytes()
    del held
    assert peak - PeakMemory().bytes() > 0.9 * size


def test_elsewhere_it_is_the_peak_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    known = PeakMemory().bytes()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")  # type: ignore[operator]
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "where")  # type: ignore[operator]
    assert PeakMemory().bytes() >= 0.5 * known > 2**20
