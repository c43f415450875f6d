"""Functions compiled by TorchScript, which threads run side by side without waiting for each other.

Python hands its lock to another thread at every operation, and an eager forward pass is hundreds of short ones: four
passes in four threads take twice as long as in four processes. A compiled function gives the lock away until it
returns. TorchScript is deprecated, and PyTorch does not support it from Python 3.14 on, but what shall replace it
either keeps the lock between operations (torch.export) or needs a C++ compiler where it runs (torch.compile).
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

Inputs = ParamSpec("Inputs")

SUPPORTED = sys.version_info < (3, 14)
"""Whether PyTorch supports TorchScript on this Python; on later ones it says that it "may break"."""

_log = logging.getLogger(__name__)
_lock = threading.Lock()


def scripted(
    function: Callable[Inputs, Tensor], *example: Inputs.args, **options: Inputs.kwargs
) -> Callable[Inputs, Tensor]:
    """The function compiled, or the function itself where that fails or changes a bit of its result for the example.

    Args:
        function: a module's function of what TorchScript knows: tensors, numbers, and lists and tuples of them. It
            sees no globals but functions.
        example: arguments to try it on.
        options: such arguments by name.

    """
    if not SUPPORTED:
        return function
    try:
        compiled = _compiled(function)
        if torch.equal(compiled(*example, **options), function(*example, **options)):
            return compiled
        _log.debug("%s stays as it is: TorchScript changes its result", function.__name__)
    except Exception as error:  # whatever a compiler raises that nobody mends any more
        _log.debug("%s stays as it is: %s", function.__name__, error)
    return function


def _compiled(function: Callable[Inputs, Tensor]) -> Callable[Inputs, Tensor]:
    # The DeprecationWarning is for us, not for users. Filters are the whole process's, hence the lock.
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.jit.script(function)

    def run(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Tensor:
        # Optimised, the first two runs take 40 ms longer, and no run is faster. The switch is this thread's own.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            result: Tensor = compiled(*args, **kwargs)
            return result

    return run
