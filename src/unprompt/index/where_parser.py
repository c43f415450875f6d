"""Reads conditions on metadata, such as ``steps >= 30 and (sampler = 'k_lms' or cfg in (7, 7.5))``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from unprompt.errors import QueryError
from unprompt.index.where import (
    ALIASES,
    COLUMNS,
    SINGLE_PRECISION,
    All,
    Compare,
    Condition,
    Field,
    Known,
    Like,
    OneOf,
    Some,
    Value,
    Where,
    moments,
)

GRAMMAR = r"""
start: any
?any: every ("or"i every)*            -> any
?every: single ("and"i single)*       -> every
?single: test | "(" any ")" | "not"i single -> negation
test: field OP value                  -> compare
    | field "in"i list                -> one_of
    | field "not"i "in"i list         -> none_of
    | field "like"i STRING            -> like
    | field "not"i "like"i STRING     -> not_like
    | field "contains"i STRING        -> contains
    | field "not"i "contains"i STRING -> contains_not
    | field "is"i "null"i             -> unknown
    | field "is"i "not"i "null"i      -> known
list: "(" value ("," value)* ")"
field: NAME | NAME "." (NAME | STRING)
value: NUMBER | STRING | TRUE | FALSE
TRUE: "true"i
FALSE: "false"i
OP: "<=" | ">=" | "!=" | "<>" | "==" | "=" | "<" | ">"
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
STRING: /'([^'\x00-\x1f]|'')*'/ | /"([^"\x00-\x1f]|"")*"/
NAME: /[A-Za-z_][A-Za-z0-9_]*/
%ignore /[ \t\r\n]+/
"""

MAX_LENGTH = 20_000
_NEGATED = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SPELLINGS = {"==": "=", "<>": "!="}
_EXPECTED = {
    **dict.fromkeys(("NUMBER", "STRING", "TRUE", "FALSE"), "a value"),
    **{"OP": "= or <", "NAME": "a field", "$END": "the end", "LPAR": "(", "RPAR": ")", "COMMA": "a comma", "DOT": "."},
}
_HINTS = {"size": "use width and height", "user": "use extra.user", "user_name": "use extra.user_name"}

# A condition, negated or not: negation is pushed down to the tests, where unknown stays unknown.
_Node = Callable[[bool], Condition]


class _Fault(Exception):
    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


def parse_where(text: str) -> Where:
    """Reads a condition.

    Args:
        text: tests joined by and, or, not and parentheses. A test is ``FIELD OP VALUE`` with = != < <= > >=,
            ``FIELD [not] in (VALUE, ...)``, ``FIELD [not] like 'PATTERN'``, ``FIELD [not] contains 'TEXT'`` or
            ``FIELD is [not] null``. Fields are the keys of `COLUMNS` and `ALIASES`, and ``extra.NAME`` for any other
            metadata. Texts stand in quotes, doubled where they are part of the text; dates are ISO 8601 in quotes.

    Raises:
        QueryError: it cannot be read, names an unknown field, or compares a field with a value of another type; the
            message gives the column.
    """
    import lark

    if len(text) > MAX_LENGTH:
        raise QueryError(f"the condition has {len(text)} characters, use at most {MAX_LENGTH}")
    text = text.translate({ord(blank): " " for blank in "\t\r\n"})  # one line, for its columns
    try:
        tree: Any = _parser().parse(text)
        return Where(text, tree.children[0](False))
    except _Fault as error:
        fault = error
    except lark.exceptions.UnexpectedInput as error:
        fault = _unexpected(error, text)
    except RecursionError:
        fault = _Fault("too many parentheses or nots within each other", 1)
    raise QueryError(_message(text, fault))


@lru_cache(maxsize=1)
def _parser() -> Any:
    import lark

    methods = {name: lambda _, children, rule=rule: rule(*children) for name, rule in _RULES.items()}
    reader = type("Reader", (lark.Transformer,), methods)
    return lark.Lark(GRAMMAR, parser="lalr", transformer=reader(), maybe_placeholders=False)


def _field(*tokens: Any) -> tuple[Field, int]:
    first, column = str(tokens[0]), tokens[0].column
    if len(tokens) == 2:
        if first.lower() != "extra":
            raise _Fault(f"unknown field {first!r}; write extra.NAME for metadata without a column", column)
        key = str(tokens[1])
        return Field(_text(key) if tokens[1].type == "STRING" else key, extra=True), column
    name = ALIASES.get(first.lower(), first.lower())
    if name not in COLUMNS:
        close = difflib.get_close_matches(name, [*COLUMNS, *ALIASES], 1)
        hint = _HINTS.get(name) or (f"did you mean {close[0]}?" if close else f"fields are {', '.join(COLUMNS)}")
        raise _Fault(f"unknown field {first!r}; {hint} (other metadata is extra.NAME)", column)
    return Field(name), column


def _value(token: Any) -> Any:
    return token


def _compare(where: tuple[Field, int], op: Any, token: Any) -> _Node:
    field, _ = where
    spelled = _SPELLINGS.get(str(op), str(op))
    if field.kind == "date":
        return lambda negated: _compare_dates(field, _NEGATED[spelled] if negated else spelled, _dates(token))
    value = _comparable(field, token)
    if spelled not in ("=", "!=") and (isinstance(value, bool) or (field.kind == "text" and token.type == "NUMBER")):
        raise _Fault(f"{field.name} takes a text in quotes, or = and !=, not {spelled} {token}", token.column)
    return lambda negated: Compare(field, _NEGATED[spelled] if negated else spelled, value)


def _compare_dates(field: Field, op: str, span: tuple[int, int]) -> Condition:
    """A date with a part left out is all of the time that it names: ``= '2022-08'`` is any moment of that month."""
    first, past = float(span[0]), float(span[1])
    if op == "=":
        return All((Compare(field, ">=", first), Compare(field, "<", past)))
    if op == "!=":
        return Some((Compare(field, "<", first), Compare(field, ">=", past)))
    edges = {"<": ("<", first), "<=": ("<", past), ">": (">=", past), ">=": (">=", first)}
    return Compare(field, *edges[op])


def _one_of(negative: bool) -> Callable[..., _Node]:
    def node(where: tuple[Field, int], tokens: list[Any]) -> _Node:
        field, _ = where
        if field.kind == "date":
            spans = [_dates(token) for token in tokens]
            return lambda negated: _join(
                [_compare_dates(field, "!=" if negated != negative else "=", span) for span in spans],
                every=negated != negative,
            )
        values = [_comparable(field, token) for token in tokens]
        return lambda negated: _members(field, values, negated != negative)

    return node


def _members(field: Field, values: list[Value], negated: bool) -> Condition:
    """One test for each type of value; "not in" needs the field's value to be of one of these types."""
    numbers = tuple(dict.fromkeys(v for v in values if isinstance(v, float)))
    texts = tuple(dict.fromkeys(v for v in values if isinstance(v, str)))
    tests: list[Condition] = [OneOf(field, found, negated) for found in (numbers, texts) if found]
    bools = [Compare(field, "!=" if negated else "=", v) for v in dict.fromkeys(values) if isinstance(v, bool)]
    if bools:
        tests.append(_join(bools, every=negated))
    return _join(tests, every=False)


def _like(negative: bool) -> Callable[..., _Node]:
    def node(where: tuple[Field, int], token: Any) -> _Node:
        _check_text(where[0], token)
        pattern = _text(str(token))
        if pattern.replace("\\\\", "").replace("\\%", "").replace("\\_", "").count("\\"):
            raise _Fault(r"in a pattern a backslash stands only before %, _ or another backslash", token.column)
        return lambda negated: Like(where[0], pattern, negated != negative)

    return node


def _contains(negative: bool) -> Callable[..., _Node]:
    def node(where: tuple[Field, int], token: Any) -> _Node:
        _check_text(where[0], token)
        text = _text(str(token))
        if not text:
            raise _Fault("contains needs some text", token.column)
        literal = "".join("\\" + character if character in "\\%_" else character for character in text)
        return lambda negated: Like(where[0], f"%{literal}%", negated != negative)

    return node


def _known(negative: bool) -> Callable[..., _Node]:
    return lambda where: lambda negated: Known(where[0], negated != negative)


def _negation(node: _Node) -> _Node:
    return lambda negated: node(not negated)


def _joined(every: bool) -> Callable[..., _Node]:
    # De Morgan: a negated "and" is an "or" of negations.
    return lambda *nodes: lambda negated: _join([node(negated) for node in nodes], every=every != negated)


def _join(parts: list[Any], every: bool) -> Condition:
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    return All(tuple(parts)) if every else Some(tuple(parts))


_RULES: dict[str, Callable[..., Any]] = {
    "any": _joined(every=False),
    "every": _joined(every=True),
    "negation": _negation,
    "compare": _compare,
    "one_of": _one_of(negative=False),
    "none_of": _one_of(negative=True),
    "like": _like(negative=False),
    "not_like": _like(negative=True),
    "contains": _contains(negative=False),
    "contains_not": _contains(negative=True),
    "unknown": _known(negative=True),
    "known": _known(negative=False),
    "list": lambda *values: list(values),
    "field": _field,
    "value": _value,
}


def _text(quoted: str) -> str:
    return quoted[1:-1].replace(quoted[0] * 2, quoted[0])


def _comparable(field: Field, token: Any) -> Value:
    """The value of a token as the field is compared with it."""
    if token.type in ("TRUE", "FALSE"):
        if field.kind != "any":
            raise _Fault(f"{field.name} is a {field.kind}, not true or false", token.column)
        return bool(token.type == "TRUE")
    if token.type == "STRING":
        if field.kind == "number":
            raise _Fault(f"{field.name} is a number; write it without quotes", token.column)
        return _text(str(token))
    if field.kind == "text":  # such as a seed, which may be too large for a number
        return str(token)
    number = float(token)
    if abs(number) == float("inf"):
        raise _Fault(f"{token} is too large for a number", token.column)
    if field.name in SINGLE_PRECISION and not field.extra and abs(number) <= float(np.finfo(np.float32).max):
        return float(np.float32(number))
    return number


def _dates(token: Any) -> tuple[int, int]:
    span = moments(_text(str(token))) if token.type == "STRING" else None
    if span is None:
        raise _Fault(f"{token} is no date; write '2022-08-16' or '2022-08-16T03:14:00+00:00'", token.column)
    return span


def _check_text(field: Field, token: Any) -> None:
    if field.kind not in ("text", "any"):
        raise _Fault(f"{field.name} is a {field.kind}; compare it with =, <, <=, > or >=", token.column)


def _unexpected(error: Any, text: str) -> _Fault:
    names = getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()
    expected = sorted({_EXPECTED.get(name, name.lower()) for name in names})
    column = getattr(error, "column", -1)
    at_end = getattr(getattr(error, "token", None), "type", "") == "$END"
    column = len(text) + 1 if at_end or column < 1 else column
    if text[column - 1 : column] in ("'", '"'):
        return _Fault("a text ends with the quote that it begins with", column)
    return _Fault(f"expected {' or '.join(expected) or 'something else'}", column)


def _message(text: str, fault: _Fault) -> str:
    near = text[fault.column - 1 : fault.column + 19]
    place = f"at column {fault.column}, {near!r}" if near else "at its end"
    return f"cannot read the condition {text[:80]!r} {place}: {fault}"
