from __future__ import annotations

import logging
import sys
import threading
import warnings

import pytest
import torch
from torch import Tensor

from unprompt.encoders import scripted as module
from unprompt.encoders.scripted import scripted

supported = pytest.mark.skipif(not module.SUPPORTED, reason="PyTorch does not support TorchScript on this Python")


def powers(x: Tensor, counts: list[tuple[int, Tensor]], first: bool = True) -> Tensor:
    parts: list[Tensor] = [x] if first else []
    for count, factor in counts:
        for _ in range(count):
            parts.append(parts[-1] * factor if len(parts) > 0 else x)
    return torch.cat(parts)


def unknown_to_torchscript(x: Tensor) -> Tensor:
    return x + len(sys.argv)


X = torch.arange(4, dtype=torch.float32)
COUNTS = [(2, torch.tensor(0.5)), (1, torch.tensor(3.0))]


@supported
def test_a_compiled_function_is_the_function() -> None:
    compiled = scripted(powers, X, COUNTS)
    assert compiled is not powers
    for x in (X, torch.randn(7, 3)):
        assert torch.equal(compiled(x, COUNTS), powers(x, COUNTS))
        assert torch.equal(compiled(x, COUNTS[:1], first=False), powers(x, COUNTS[:1], first=False))


def test_what_cannot_be_compiled_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, module.__name__):
        assert scripted(unknown_to_torchscript, X) is unknown_to_torchscript
    assert not module.SUPPORTED or "unknown_to_torchscript stays as it is" in caplog.text


def test_where_torchscript_is_not_supported_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUPPORTED", False)
    monkeypatch.setattr(torch.jit, "script", lambda _: pytest.fail("it was tried"))
    assert scripted(powers, X, COUNTS) is powers


@supported
def test_what_gives_other_bits_or_fails_on_the_example_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.jit, "script", lambda function: lambda *args: function(*args) * (1 + 1e-6))
    assert scripted(powers, X, COUNTS) is powers
    monkeypatch.setattr(torch.jit, "script", lambda function: lambda x: x)
    assert scripted(powers, X, COUNTS) is powers


@supported
def test_no_warning_escapes_and_filters_stay_as_they_were() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        assert scripted(powers, X, COUNTS) is not powers
        assert warnings.filters == before
    assert caught == []


@supported
def test_other_users_of_torchscript_keep_their_optimiser() -> None:
    compiled = scripted(powers, X, COUNTS)
    compiled(X, COUNTS)
    assert torch._C._get_graph_executor_optimize()


@supported
def test_several_threads_may_compile_and_run_at_once() -> None:
    expected, found = powers(X, COUNTS), []

    def work() -> None:
        compiled = scripted(powers, X, COUNTS)
        found.extend([compiled is not powers, *(torch.equal(compiled(X, COUNTS), expected) for _ in range(20))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 84
