"""Conditions at random, and what they mean, in SQL's logic of three values: slow, plain, and without the package."""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from unprompt.types import Record

NUMBERS = {"cfg": np.float32, "steps": float, "width": float, "height": float, "nsfw": np.float32}
TEXTS = ["sampler", "source", "prompt", "negative_prompt", "seed"]
EXTRAS = ['extra."user name"', "extra.likes", "extra.nothing"]
OPERATIONS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Node = tuple[Any, ...]

_numbers = st.sampled_from([0, 1, 3, 5, 7, 7.1, 7.5, 12, 30, 35.5, 512, 768, -2, 0.05, 0.5])
_texts = st.sampled_from(
    ["k_lms", "ddim", "50%_done", "back\\slash", "Ünïcode 水", "it's", "", "mine", "blurry", "many"]
)
_patterns = st.sampled_from(["%", "k%", "%_", "50\\%%", "%水", "%\\_%", "a red thing%", "_ddim", "%'%", "back\\\\%"])
_contained = st.sampled_from(["k_", "%", "_", "\\", "水", "'", "thing 1", "anna", "red"])
_dates = st.sampled_from([("2022", 365), ("2022-08", 31), ("2022-08-16", 1), ("2021-12-31", 1), ("2022-01-01", 1)])
_moments = st.sampled_from(["2022-08-16T03:14:00+00:00", "2022-08-16T05:14:00+02:00", "2022-09-01T21:59:59.500000Z"])
_operators = st.sampled_from(sorted(OPERATIONS))
_equalities = st.sampled_from(["=", "!="])
_bools = st.booleans()


def _values(fields: list[str], values: Any, operators: Any = _operators) -> Any:
    return st.one_of(
        st.tuples(st.just("compare"), st.sampled_from(fields), operators, values),
        st.tuples(st.just("in"), st.sampled_from(fields), _bools, st.lists(values, min_size=1, max_size=3)),
    )


tests = st.one_of(
    _values(sorted(NUMBERS), _numbers),
    _values(TEXTS, _texts),
    _values(EXTRAS, _numbers),
    _values(EXTRAS, _texts),
    _values(EXTRAS, _bools, _equalities),
    st.tuples(
        st.just("in"), st.sampled_from(EXTRAS), _bools, st.lists(_numbers | _texts | _bools, min_size=1, max_size=4)
    ),
    st.tuples(st.just("like"), st.sampled_from(TEXTS), _bools, _patterns),
    st.tuples(st.just("contains"), st.sampled_from([*TEXTS, EXTRAS[0]]), _bools, _contained),
    st.tuples(st.just("date"), _operators, _dates),
    st.tuples(st.just("moment"), _operators, _moments),
    st.tuples(st.just("null"), st.sampled_from([*sorted(NUMBERS), *TEXTS, *EXTRAS, "date"]), _bools),
)
conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.tuples(st.just("and"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("or"), st.lists(inner, min_size=2, max_size=3)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=6,
)


def render(node: Node) -> str:
    """The condition as a user writes it."""
    kind = node[0]
    if kind in ("and", "or"):
        return f" {kind} ".join(f"({render(part)})" for part in node[1])
    if kind == "not":
        return f"not ({render(node[1])})"
    if kind == "compare":
        return f"{node[1]} {node[2]} {_literal(node[3])}"
    if kind == "in":
        return f"{node[1]} {'not ' * node[2]}in ({', '.join(map(_literal, node[3]))})"
    if kind in ("like", "contains"):
        return f"{node[1]} {'not ' * node[2]}{kind} {_literal(node[3])}"
    if kind == "null":
        return f"{node[1]} is {'not ' * node[2]}null"
    return f"date {node[1]} '{node[2][0] if kind == 'date' else node[2]}'"


def truth(node: Node, record: Record) -> bool | None:
    """Whether a record matches; None is unknown."""
    kind = node[0]
    if kind == "not":
        inner = truth(node[1], record)
        return None if inner is None else not inner
    if kind in ("and", "or"):
        found = [truth(part, record) for part in node[1]]
        decisive = kind == "or"
        return decisive if decisive in found else None if None in found else not decisive
    if kind == "null":
        return (_known(node[1], record)) == node[2]
    if kind in ("date", "moment"):
        return _date_truth(node, record)
    value = _value(node[1], record)
    if kind == "compare":
        return _compare(node[1], value, node[2], node[3])
    if kind == "in":
        found = [_compare(node[1], value, "=", each) for each in node[3]]
        return None if set(found) == {None} else (True in found) != node[2]
    if not isinstance(value, str):
        return None
    matches = node[3] in value if kind == "contains" else _like(node[3], value)
    return matches != node[2]


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()


def _value(field: str, record: Record) -> Any:
    if field == "prompt":
        return record.prompt
    name = {"nsfw": "image_nsfw", 'extra."user name"': "user name"}.get(field, field.removeprefix("extra."))
    value = record.metadata.get(name)
    return None if isinstance(value, list) or value == 10**400 else value


def _known(field: str, record: Record) -> bool:
    if field == "date":
        return _date(record) is not None
    if field == 'extra."user name"':
        return "user name" in record.metadata
    return _value(field, record) is not None


def _compare(field: str, value: Any, op: str, literal: Any) -> bool | None:
    kinds = (bool, str)
    same = [isinstance(value, kind) == isinstance(literal, kind) for kind in kinds]
    if value is None or not all(same):
        return None
    rounded = NUMBERS.get(field, float if not isinstance(literal, kinds) else type(literal))
    return bool(OPERATIONS[op](rounded(value), rounded(literal)))


def _date(record: Record) -> datetime | None:
    try:
        moment = datetime.fromisoformat(record.metadata.get("timestamp", ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _date_truth(node: Node, record: Record) -> bool | None:
    moment = _date(record)
    if moment is None:
        return None
    if node[0] == "moment":
        return bool(OPERATIONS[node[1]](moment, datetime.fromisoformat(node[2])))
    text, days = node[2]
    parts = [int(part) for part in text.split("-")]
    first = datetime(*[*parts, 1, 1][:3], tzinfo=UTC)
    past = first + timedelta(days=days)
    inside = first <= moment < past
    return {
        "=": inside,
        "!=": not inside,
        "<": moment < first,
        "<=": moment < past,
        ">": moment >= past,
        ">=": moment >= first,
    }[node[1]]


def _like(pattern: str, value: str) -> bool:
    regex, i = "", 0
    while i < len(pattern):
        if pattern[i] == "\\":
            i += 1
            regex += re.escape(pattern[i])
        else:
            regex += {"%": "(.|\n)*", "_": "(.|\n)"}.get(pattern[i]) or re.escape(pattern[i])
        i += 1
    return re.fullmatch(regex, value) is not None
