"""Metadata filters, compiled to SQL so that they are applied before the cut to k.

A filter is a mapping in the style LangChain's vector stores share: `{"lang": "en"}`, `{"year": {"$gte": 2020}}`,
`{"lang": {"$in": ["en", "de"]}}`, `{"$or": [...]}`, `{"$and": [...]}`, `{"$not": {...}}`; several keys in one mapping must
all hold. Values are compared with their type: the string "1" is not the number 1, and true is not 1. A field that is missing,
or holds a list or a mapping, equals nothing and compares with nothing, so `$ne`, `$nin` and `$not` let its passage through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ragkit.errors import InputError

Filter = Mapping[str, Any]
T = TypeVar("T", str, float | str)

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_NUMBER = "type IN ('integer', 'real')"
_DEEPEST, _CHAIN = 10, 50  # SQLite takes expressions up to 1000 deep, and brackets up to about 30
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES)


class Condition(NamedTuple):
    """A WHERE expression that is true or false, never null, its parameters, and the metadata fields it names."""

    sql: str
    parameters: list[Any]
    fields: list[str]


class Dialect(NamedTuple):
    """How an engine says what a filter consists of; both give SQL that is true or false, never null, and its parameters."""

    one_of: Callable[[str, Sequence[Any]], tuple[str, list[Any]]]
    """A field, and values: that it has one of them, which nothing has if there are none."""
    compare: Callable[[str, str, float | str], tuple[str, list[Any]]]
    """A field, one of < <= > >=, and a bound: that it has a value of the bound's type on that side of it."""

    def condition(self, filter: Filter) -> Condition:
        """A filter in this dialect. Raises `InputError`, naming the key, for anything outside the grammar above."""
        return self._all_of(filter, 1)

    def _all_of(self, filter: Filter, depth: int) -> Condition:
        if not isinstance(filter, Mapping):
            raise InputError(f"filter must be a mapping such as {{'lang': 'en'}}, not {type(filter).__name__}")
        if depth > _DEEPEST:
            raise InputError(f"filter: $and, $or and $not are nested more than {_DEEPEST} deep; put what they hold side by side")
        return _join("AND", [self._entry(key, value, depth) for key, value in filter.items()])

    def _entry(self, key: str, value: Any, depth: int) -> Condition:
        if key in ("$and", "$or"):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise InputError(f"filter {key}: expected a list of filters, got {type(value).__name__}")
            return _join("AND" if key == "$and" else "OR", [self._all_of(part, depth + 1) for part in value])
        if key == "$not":
            return _negate(self._all_of(value, depth + 1))
        if not isinstance(key, str) or key.startswith("$"):
            raise InputError(f"filter key {key!r} is unknown; use a metadata field, $and, $or or $not")
        if isinstance(value, Mapping):
            return _join("AND", [self._operator(key, operator, operand) for operator, operand in value.items()])
        return self._has(key, [value])

    def _operator(self, field: str, operator: str, operand: Any) -> Condition:
        if operator in ("$eq", "$ne"):
            equal = self._has(field, [operand])
            return equal if operator == "$eq" else _negate(equal)
        if operator in ("$in", "$nin"):
            if not isinstance(operand, list | tuple | set | frozenset):
                raise InputError(f"filter {field}: {operator} takes a list, got {type(operand).__name__}")
            any_of = self._has(field, list(operand))
            return any_of if operator == "$in" else _negate(any_of)
        if operator in _RANGES:
            if isinstance(operand, bool) or not isinstance(operand, int | float | str):
                raise InputError(f"filter {field}: {operator} takes a number or a string, got {type(operand).__name__}")
            _check(field, operand)
            return Condition(*self.compare(field, _RANGES[operator], operand), [field])
        raise InputError(f"filter {field}: unknown operator {operator!r}; use one of {', '.join(_OPERATORS)}")

    def _has(self, field: str, values: Sequence[Any]) -> Condition:
        for value in values:
            _check(field, value)
        return Condition(*self.one_of(field, values), [field])


def compile_filter(filter: Filter) -> Condition:
    """The SQL of a filter over the column `metadata` (JSON text) of SQLite. Raises what `Dialect.condition` raises."""
    return _SQLITE.condition(filter)


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """The filter that lets through what both let through; None lets everything through."""
    if first and second:
        return {"$and": [first, second]}
    return first or second or None


def _check(field: str, value: Any) -> None:
    if not isinstance(value, int | float | str | None):
        raise InputError(
            f"filter {field}: cannot compare with a {type(value).__name__}; use a string, number, true/false or null"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"filter {field}: {value} does not fit into 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"filter {field}: {value} cannot be compared; use a finite number")


def _join(word: str, parts: Sequence[Condition]) -> Condition:
    """All of the parts, or one of them; of none all hold."""
    empty = "true" if word == "AND" else "false"
    return Condition(
        _bracketed(word, [part.sql for part in parts]) if parts else empty,
        [parameter for part in parts for parameter in part.parameters],
        [field for part in parts for field in part.fields],
    )


def _bracketed(word: str, tests: Sequence[str]) -> str:
    """The tests in chains of at most `_CHAIN`: a long chain is a deep expression to SQLite, and so are many brackets."""
    while len(tests) > 1:
        links = [tests[start : start + _CHAIN] for start in range(0, len(tests), _CHAIN)]
        tests = [f"({f' {word} '.join(chain)})" if len(chain) > 1 else chain[0] for chain in links]
    return tests[0]


def _negate(condition: Condition) -> Condition:
    return condition._replace(sql=f"NOT ({condition.sql})")


def _one_of(field: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    """One look at the field, however many values there are: they are handed over as JSON lists, by type."""
    tests, parameters = ["false"], []
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    for kind, chosen in (("type = 'text'", texts), (_NUMBER, numbers)):
        if chosen:
            tests.append(f"{kind} AND value IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(chosen))
    for constant, kind in ((None, "null"), (True, "true"), (False, "false")):
        if any(value is constant for value in values):
            tests.append(f"type = '{kind}'")
    return _holds(field, f"({' OR '.join(tests)})", parameters)


def _compare(field: str, sign: str, bound: float | str) -> tuple[str, list[Any]]:
    kind = "type = 'text'" if isinstance(bound, str) else _NUMBER
    return _holds(field, f"{kind} AND value {sign} ?", [_encodable(field, bound)])


def _holds(field: str, test: str, parameters: list[Any]) -> tuple[str, list[Any]]:
    return f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND {test})", [_encodable(field, field), *parameters]


def _encodable(field: str, value: T) -> T:
    """The value, which SQLite is to be given as such."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise InputError(f"filter {field!r}: {value!r} holds half of a surrogate pair; use valid Unicode") from None
    return value


_SQLITE = Dialect(_one_of, _compare)
