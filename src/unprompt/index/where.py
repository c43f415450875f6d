"""Conditions on pictures' metadata, such as ``steps >= 30 and sampler = 'k_lms'``: what they are made of.

A condition is a tree in negation normal form: `All` and `Some` over tests, and every "not" is part of a test. A test of
a value that a picture lacks is unknown in SQL's sense, and a picture matches where the condition is true. In this form
unknown may be taken as false: "and" and "or" never make a truth of it. So a search engine needs no logic of three
values, only tests that are false on what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from unprompt.types import METADATA_KEYS

Value = float | str | bool

DATE = "timestamp"
DATE_COLUMN = "timestamp_us"
"""Where search engines keep `DATE` as a number: microseconds since 1970, in UTC."""

COLUMNS: Mapping[str, str] = {
    "id": "id",
    "prompt": "caption",
    "image": "image_path",
    "sha256": "sha256",
    **{name: name for name in METADATA_KEYS},
}
"""Field -> its column in a library's metadata."""

ALIASES: Mapping[str, str] = {
    "date": DATE,
    "nsfw": "image_nsfw",
    "caption": "prompt",
    "image_path": "image",
    "negative": "negative_prompt",
    "licence": "license",
    "cfg_scale": "cfg",
}

SINGLE_PRECISION = frozenset(name for name, kind in METADATA_KEYS.items() if kind is float)
"""Fields that libraries keep as float32: what they are compared with is rounded in the same way."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a test is about.

    Attributes:
        name: a key of `COLUMNS`, or a picture's own metadata key.
        extra: whether it is the latter. Such values are of any type; a test takes only those of its own value's type.
    """

    name: str
    extra: bool = False

    @property
    def kind(self) -> str:
        """ "text", "number", "date", or "any"."""
        if self.extra:
            return "any"
        if self.name == DATE:
            return "date"
        return "text" if METADATA_KEYS.get(self.name, str) is str else "number"


@dataclass(frozen=True, slots=True)
class Compare:
    """``field op value``; `op` is one of = != < <= > >=, only the first two with a bool. Dates are microseconds."""

    field: Field
    op: str
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field's value is, or with `negated` is known and not, one of `values`, which are all numbers or all texts."""

    field: Field
    values: tuple[float, ...] | tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    r"""A text that matches, or with `negated` does not match, all of a pattern: % any text, _ any one character.

    A backslash stands before %, _ and backslash that stand for themselves, and nowhere else.
    """

    field: Field
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The picture has a value in this field, or with `negated` has none."""

    field: Field
    negated: bool = False


@dataclass(frozen=True, slots=True)
class All:
    """All of `parts` match; true when there are none."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of `parts` matches; false when there are none."""

    parts: tuple[Condition, ...]


Test = Compare | OneOf | Like | Known
Condition = Test | All | Some


@dataclass(frozen=True, slots=True)
class Where:
    """A condition and the text that it was read from. See `unprompt.index.where_parser.parse_where`."""

    text: str
    condition: Condition

    def fields(self) -> list[Field]:
        """The distinct fields that it tests, by name."""
        return sorted({test.field for test in _tests(self.condition)}, key=lambda field: (field.extra, field.name))


def typed(value: Any) -> Value | None:
    """A metadata value as tests compare it: a number as float, a text, a bool; None for anything else."""
    if isinstance(value, bool | str):
        return value
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < float("inf") else None


def microseconds(text: str) -> int | None:
    """An ISO 8601 date or time as microseconds since 1970, taken as UTC when it names no zone; None for other text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moments(text: str) -> tuple[int, int] | None:
    """The microseconds, first and past the last, of what a date names: a year, a month, a day, or a moment."""
    match = _DATE.fullmatch(text)
    if match is None:
        start = microseconds(text)
        return None if start is None else (start, start + 1)
    year, month, day = (int(part) if part else None for part in match.groups())
    try:
        first = datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
        last = first + timedelta(days=1) if day else _month_after(first, 1 if month else 12)
    except (ValueError, OverflowError):
        return None
    return (first - _EPOCH) // timedelta(microseconds=1), (last - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")


def _month_after(first: datetime, months: int) -> datetime:
    total = first.month - 1 + months
    return first.replace(year=first.year + total // 12, month=total % 12 + 1)


def _tests(condition: Condition) -> Iterator[Test]:
    if isinstance(condition, All | Some):
        for part in condition.parts:
            yield from _tests(part)
    else:
        yield condition
