"""Metadata filters, compiled to SQL so that they are applied before the cut to k.

A filter is a mapping in the style LangChain's vector stores share: `{"lang": "en"}`, `{"year": {"$gte": 2020}}`,
`{"lang": {"$in": ["en", "de"]}}`, `{"$or": [...]}`, `{"$and": [...]}`, `{"$not": {...}}`; several keys in one mapping must
all hold. Values are compared with their type: the string "1" is not the number 1, and true is not 1. A field that is missing
equals nothing, so `$ne`, `$nin` and `$not` let its passage through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ragkit.errors import InputError

Filter = Mapping[str, Any]

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_NUMBER = "type IN ('integer', 'real')"
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_RANGES)


class Condition(NamedTuple):
    """A WHERE expression over the column `metadata` (JSON text), its parameters, and the metadata fields it names."""

    sql: str
    parameters: list[Any]
    fields: list[str]


def compile_filter(filter: Filter) -> Condition:
    """The SQL of a filter. Raises `InputError`, naming the key, for anything outside the grammar above."""
    if not isinstance(filter, Mapping):
        raise InputError(f"filter must be a mapping such as {{'lang': 'en'}}, not {type(filter).__name__}")
    return _join(" AND ", "1", [_entry(key, value) for key, value in filter.items()])


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """The filter that lets through what both let through; None lets everything through."""
    if first and second:
        return {"$and": [first, second]}
    return first or second or None


def _entry(key: str, value: Any) -> Condition:
    if key in ("$and", "$or"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InputError(f"filter {key}: expected a list of filters, got {type(value).__name__}")
        parts = [compile_filter(part) for part in value]
        return _join(" AND ", "1", parts) if key == "$and" else _join(" OR ", "0", parts)
    if key == "$not":
        return _negate(compile_filter(value))
    if not isinstance(key, str) or key.startswith("$"):
        raise InputError(f"filter key {key!r} is unknown; use a metadata field, $and, $or or $not")
    if isinstance(value, Mapping):
        return _join(" AND ", "1", [_operator(key, operator, operand) for operator, operand in value.items()])
    return _equals(key, value)


def _operator(field: str, operator: str, operand: Any) -> Condition:
    if operator == "$eq":
        return _equals(field, operand)
    if operator == "$ne":
        return _negate(_equals(field, operand))
    if operator in ("$in", "$nin"):
        if not isinstance(operand, list | tuple | set | frozenset):
            raise InputError(f"filter {field}: {operator} takes a list, got {type(operand).__name__}")
        any_of = _one_of(field, list(operand))
        return any_of if operator == "$in" else _negate(any_of)
    if operator in _RANGES:
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise InputError(f"filter {field}: {operator} takes a number or a string, got {type(operand).__name__}")
        kind = "type = 'text'" if isinstance(operand, str) else _NUMBER
        return _holds(field, f"{kind} AND value {_RANGES[operator]} ?", [_bound(field, operand)])
    raise InputError(f"filter {field}: unknown operator {operator!r}; use one of {', '.join(_OPERATORS)}")


def _equals(field: str, value: Any) -> Condition:
    return _one_of(field, [value])


def _one_of(field: str, values: list[Any]) -> Condition:
    """One look at the field, however many values there are: they are handed over as JSON lists, by type."""
    tests, parameters = ["0"], []
    texts = [value for value in values if isinstance(value, str)]
    numbers = [_bound(field, value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    for kind, chosen in (("type = 'text'", texts), (_NUMBER, numbers)):
        if chosen:
            tests.append(f"{kind} AND value IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(chosen))
    for constant, kind in ((None, "null"), (True, "true"), (False, "false")):
        if any(value is constant for value in values):
            tests.append(f"type = '{kind}'")
    for value in values:
        if not isinstance(value, int | float | str | None):
            raise InputError(
                f"filter {field}: cannot compare with a {type(value).__name__}; use a string, number, true/false or null"
            )
    return _holds(field, f"({' OR '.join(tests)})", parameters)


def _bound(field: str, value: float | str) -> float | str:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"filter {field}: {value} does not fit into 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"filter {field}: {value} cannot be compared; use a finite number")
    return value


def _holds(field: str, test: str, parameters: list[Any]) -> Condition:
    sql = f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = ? AND {test})"
    return Condition(sql, [field, *parameters], [field])


def _negate(condition: Condition) -> Condition:
    return condition._replace(sql=f"NOT ({condition.sql})")


def _join(operator: str, empty: str, parts: Sequence[Condition]) -> Condition:
    return Condition(
        f"({operator.join(part.sql for part in parts)})" if parts else empty,
        [parameter for part in parts for parameter in part.parameters],
        [field for part in parts for field in part.fields],
    )
