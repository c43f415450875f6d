"""METEOR 1.5's program, kept running: it reads for seconds before it scores its first pair."""

from __future__ import annotations

import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO

from unprompt.evaluation.metrics.scores import EvaluationError

ARGUMENTS = ("-", "-", "-stdio", "-l", "en", "-norm")
SEPARATOR = " ||| "


class MeteorProgram:
    """One process that is asked for pair after pair; it ends with the object, or with Python.

    Its protocol: "SCORE ||| reference ||| candidate" is answered by a line of counts, "EVAL ||| counts" by the score
    of these, twice (of the pair, and of all). Scores are those of a run on files, to the last digit.

    Args:
        command: how it is started, without its arguments.

    Raises:
        EvaluationError: it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (no pipe, for one that nobody reads fills up)
        try:
            self._process = subprocess.Popen(
                [*command, *ARGUMENTS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            self._said.close()
            raise EvaluationError(f"METEOR cannot be started ({error}): check Java") from None
        weakref.finalize(self, _stop, self._process, self._said)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The scores of (candidate, reference) pairs, each text a line.

        Raises:
            EvaluationError: the program ended, or did not answer with scores.
        """
        values: list[float] = []
        said = ""
        try:
            for candidate, reference in pairs:
                counts = self._ask("SCORE", _plain(reference), _plain(candidate))
                said = self._ask("EVAL", counts)
                values.append(float(said))
                self._read()
        except (OSError, EOFError, ValueError) as error:
            if not isinstance(error, ValueError):
                said = self._last_words() or "nothing"
            raise EvaluationError(
                f"METEOR scored {len(values)} of {len(pairs)} pairs, it said {said!r}: check Java"
            ) from None
        return values

    def _ask(self, *parts: str) -> str:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(SEPARATOR.join(parts) + "\n")
        stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return line.strip()

    def _last_words(self) -> str:
        _stop(self._process)
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@lru_cache(maxsize=1)
def running(command: tuple[str, ...]) -> MeteorProgram:
    """The process of this command, started when it is first asked for."""
    return MeteorProgram(command)


def score_pairs(command: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Scores pairs by the process that runs; after a failure the next call starts another.

    Raises:
        EvaluationError: see `MeteorProgram`.
    """
    try:
        return running(tuple(command))(pairs)
    except EvaluationError:
        running.cache_clear()
        raise


def _plain(text: str) -> str:
    """What separates the parts of a request may stand in none: METEOR reads "|||" as three words anyway."""
    return text.replace("|||", "| | |")


def _stop(process: subprocess.Popen[str], said: IO[bytes] | None = None) -> None:
    """Ends a process, which it does by itself when nothing more can be asked."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):  # what it was to be told has nobody to read it
        process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    if said is not None:
        said.close()
