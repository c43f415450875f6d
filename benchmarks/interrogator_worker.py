"""One side of the comparison with CLIP Interrogator: a process of its own that is told what to do, line by line.

A request is a line of JSON, ``{"call": NAME, ...}``; the reply is a line of JSON. Arrays travel as .npy files. Both
sides run under this loop, so that seconds, encoded texts and memory are taken in the same way.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[..., Any]
# Of torch, of NumPy's OpenBLAS, and of both where MKL is built in.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class CountingEncoder:
    """The encoder with a count of the texts it was given; both sides encode through this."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.encodes = 0

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encodes += len(texts)
        rows: NDArray[np.float32] = self.encoder.encode_texts(list(texts))
        return rows

    def draft_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encodes += len(texts)
        rows: NDArray[np.float32] = self.encoder.draft_texts(list(texts))
        return rows


def timed(call: Callable[[], Any], encoder: CountingEncoder) -> dict[str, Any]:
    """Runs `call`: its result, and what it took in seconds, in seconds of this process's CPU, and in text encodes."""
    before, cpu, started = encoder.encodes, time.process_time(), time.perf_counter()
    result = call()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"result": result, "seconds": seconds, "cpu": cpu, "encodes": encoder.encodes - before}


def peak_mib() -> float:
    """The most memory this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(calls: Mapping[str, Call]) -> None:
    """Answers requests from standard input until it ends. What the calls print goes to standard error."""
    for line in sys.stdin:
        request = json.loads(line)
        with redirect_stdout(sys.stderr):
            reply = calls[request.pop("call")](**request)
        print(json.dumps({"reply": reply, "peak_mib": peak_mib()}), flush=True)


class Worker:
    """The other end of `serve`: starts ``python script arguments`` and asks it."""

    def __init__(self, python: Path | str, script: Path, arguments: Sequence[str], threads: int, log: Path) -> None:
        environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, str(threads))
        # Without the cache of hash seeds CI's results would change from run to run.
        environment |= {"PYTHONHASHSEED": "0", "PYTHONPATH": str(script.parents[1] / "src"), "HF_HUB_OFFLINE": "1"}
        self._log = log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [str(python), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.name = script.stem
        self.peak_mib = 0.0

    def ask(self, call: str, **arguments: Any) -> Any:
        """Sends a request and waits for its reply.

        Raises:
            SystemExit: the process died; its log says of what.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        try:
            stdin.write(json.dumps({"call": call, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name} died while it did {call!r}: see {self._log.name}")
        answer = json.loads(line)
        self.peak_mib = answer["peak_mib"]
        return answer["reply"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._log.close()
