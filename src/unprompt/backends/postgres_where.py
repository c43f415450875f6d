"""Conditions as SQL: columns and operators from fixed lists, everything that a user wrote as a parameter."""

from __future__ import annotations

from typing import Any

from unprompt.backends.tables import column_of, compared_key, extra_key
from unprompt.index.where import All, Compare, Condition, Field, Known, Like, OneOf, Some, Value

_OPERATORS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_EXTRAS = {
    float: "(extra ->> %s)::double precision",
    str: '(extra ->> %s) collate "C"',
    bool: "(extra ->> %s)::boolean",
}
_ARRAYS = {float: "%s::double precision[]", str: "%s::text[]"}

Sql = tuple[str, list[Any]]
"""An expression, and the parameters for its placeholders, in order."""


def to_sql(condition: Condition) -> Sql:
    """The condition as an expression over the columns of the table of pictures."""
    if isinstance(condition, All | Some):
        parts = [to_sql(part) for part in condition.parts]
        joint = " and " if isinstance(condition, All) else " or "
        empty = "true" if isinstance(condition, All) else "false"
        text = joint.join(f"({text})" for text, _ in parts) or empty
        return text, [value for _, values in parts for value in values]
    if isinstance(condition, Known):
        return _known(condition)
    if isinstance(condition, Compare):
        left, values = _operand(condition.field, condition.value)
        return f"{left} {_OPERATORS[condition.op]} %s", [*values, condition.value]
    if isinstance(condition, Like):
        left, values = _operand(condition.field, condition.pattern)
        return f"{left} {'not ' if condition.negated else ''}like %s", [*values, condition.pattern]
    return _one_of(condition)


def _one_of(test: OneOf) -> Sql:
    left, values = _operand(test.field, test.values[0])
    members = _ARRAYS[type(test.values[0])]
    operator = f"<> all({members})" if test.negated else f"= any({members})"
    return f"{left} {operator}", [*values, list(test.values)]


def _known(test: Known) -> Sql:
    if test.field.extra:
        return f"{'not ' if test.negated else ''}jsonb_exists(extra, %s)", [extra_key("k", test.field.name)]
    return f'"{column_of(test.field)}" is {"" if test.negated else "not "}null', []


def _operand(field: Field, value: Value) -> Sql:
    """What is compared: a column, or a value of `extra` of the same type as what it is compared with."""
    if field.extra:
        return _EXTRAS[type(value)], [compared_key(field, value)]
    return f'"{column_of(field)}"', []
