"""What is evaluated: anything that answers pictures with prompts.

The systems themselves are put together in `unprompt.systems`, which knows searches and captioners; evaluation knows
this protocol alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from unprompt.evaluation.cache import RecordStore
from unprompt.evaluation.items import Item
from unprompt.evaluation.memory import PeakMemory

logger = logging.getLogger(__name__)

BATCH = 16
"""Pictures that are answered together, and lost at most when a run is killed."""

Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system says of one picture, and what that cost.

    Attributes:
        text: the prompt; "" when it has none.
        prompts: whole prompts of a library, best first, from a system that ranks them.
        fragments: fragments of a vocabulary, best first, from a system that ranks them.
        texts: how many texts were encoded, its share of the batch's.
        seconds: its share of the batch's time, without the encoding of the picture.
        memory: the most bytes that the process held while the batch was answered; 0 where that is not known.
    """

    text: str
    prompts: tuple[str, ...] = ()
    fragments: tuple[str, ...] = ()
    texts: float = 0.0
    seconds: float = 0.0
    memory: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Answer:
        """The inverse of `to_dict`."""
        return cls(**{**values, "prompts": tuple(values["prompts"]), "fragments": tuple(values["fragments"])})


class System(Protocol):
    """Answers pictures with prompts. It is cheap to make: what is heavy waits for `prepare`.

    Attributes:
        name: what tables call it.
        fingerprint: hexadecimal digits that stand for all that its answers depend on but the picture.
        encoders: names and fingerprints of the encoders that had a hand in its answers: none of them can judge them.
        texts_encoded: how many texts it had encoded so far.
    """

    name: str
    fingerprint: str
    encoders: frozenset[str]

    @property
    def texts_encoded(self) -> int: ...

    def prepare(self, items: Sequence[Item]) -> None:
        """Loads what is needed to answer these pictures, and encodes those that are not encoded yet."""
        ...

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        """One answer a picture; what it cost is filled in by `answer_all`."""
        ...


def answer_all(system: System, items: Sequence[Item], store: RecordStore, progress: Progress) -> list[Answer]:
    """The answers to N pictures, from the store where it holds them; new ones are kept batch by batch.

    Args:
        system: is not even loaded when all is known.
        items: N pictures. One that is there twice is answered once.
        store: of this system's fingerprint.
        progress: see `Progress`.
    """
    distinct = {item.key: item for item in items}
    known = {key: store.get(key) for key in distinct}
    missing = [item for key, item in distinct.items() if known[key] is None]
    done = len(distinct) - len(missing)
    logger.info("%s: %d of %d answers are known", system.name, done, len(distinct))
    if missing:
        system.prepare(missing)
        progress(system.name, done, len(distinct))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        answers = {item.key: answer.to_dict() for item, answer in zip(batch, _timed(system, batch), strict=True)}
        store.put(answers)
        known |= answers
        done += len(batch)
        progress(system.name, done, len(distinct))
    store.compact()
    return [Answer.from_dict(known[item.key]) for item in items]


def _timed(system: System, batch: Sequence[Item]) -> list[Answer]:
    peak, texts, started = PeakMemory(), system.texts_encoded, time.perf_counter()
    answers = system.answer(batch)
    seconds = (time.perf_counter() - started) / len(batch)
    share = (system.texts_encoded - texts) / len(batch)
    held = peak.bytes()
    return [replace(answer, texts=share, seconds=seconds, memory=held) for answer in answers]
