"""Conditions as Milvus's expressions, which are text: only operators, known names and JSON literals go into it.

Negated tests say that the field is not null, so that they are false on what is missing in every release of Milvus.
"""

from __future__ import annotations

import json

from unprompt.backends.tables import column_of, compared_key, extra_key
from unprompt.errors import QueryError
from unprompt.index.where import All, Compare, Condition, Field, Known, Like, OneOf, Some, Test, Value

_OPERATORS = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def to_expression(condition: Condition) -> str:
    """The condition as a filter over the collection of pictures."""
    if isinstance(condition, All | Some):
        joint = " and " if isinstance(condition, All) else " or "
        empty = "row >= 0" if isinstance(condition, All) else "row < 0"
        return joint.join(f"({to_expression(part)})" for part in condition.parts) or empty
    if isinstance(condition, Known):
        if condition.field.extra:
            return f"{'not ' if condition.negated else ''}exists {_extra(extra_key('k', condition.field.name))}"
        return f"{column_of(condition.field)} is {'' if condition.negated else 'not '}null"
    if isinstance(condition, Compare):
        test = f"{_operand(condition.field, condition.value)} {_OPERATORS[condition.op]} {literal(condition.value)}"
        return f"{_valued(condition.field, condition.value)} and {test}" if condition.op == "!=" else test
    if isinstance(condition, Like):
        test = f"{_operand(condition.field, condition.pattern)} like {literal(condition.pattern)}"
        return f"{_valued(condition.field, condition.pattern)} and not ({test})" if condition.negated else test
    return _one_of(condition)


def literal(value: Value) -> str:
    """A value as it stands in an expression; texts hold no control characters, see the parser."""
    return json.dumps(value, ensure_ascii=False)


def members(values: tuple[float, ...] | tuple[str, ...] | list[str]) -> str:
    """A list of values as it stands in an expression."""
    return f"[{', '.join(map(literal, values))}]"


def _one_of(test: OneOf) -> str:
    if test.field.extra:  # Milvus Lite lists only the values of columns
        op, join = ("!=", All) if test.negated else ("=", Some)
        return to_expression(join(tuple(Compare(test.field, op, value) for value in test.values)))
    left, listed = column_of(test.field), members(test.values)
    return f"{left} is not null and {left} not in {listed}" if test.negated else f"{left} in {listed}"


def _operand(field: Field, value: Value) -> str:
    return _extra(compared_key(field, value)) if field.extra else column_of(field)


def _valued(field: Field, value: Value) -> str:
    return f"exists {_operand(field, value)}" if field.extra else f"{column_of(field)} is not null"


def _extra(key: str) -> str:
    return f'extra["{key}"]'


def check_lite(condition: Condition) -> None:
    """Refuses what Milvus Lite gets wrong: where a condition is about JSON, it reads a pattern's backslash as itself.

    Raises:
        QueryError: the condition has such a pattern.
    """
    tests = _tests(condition)
    escapes = any(isinstance(test, Like) and "\\" in test.pattern for test in tests)
    if escapes and any(test.field.extra for test in tests):
        raise QueryError("Milvus Lite cannot search for %, _ or \\ in a condition with extra.NAME; Milvus itself can")


def _tests(condition: Condition) -> list[Test]:
    if isinstance(condition, All | Some):
        return [test for part in condition.parts for test in _tests(part)]
    return [condition]
