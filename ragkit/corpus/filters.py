"""Metadata filters, compiled to SQL so that they are applied before the cut to k.

A filter is a mapping in the style LangChain's vector stores share: `{"lang": "en"}`, `{"year": {"$gte": 2020}}`,
`{"lang": {"$in": ["en", "de"]}}`, `{"$or": [...]}`, `{"$and": [...]}`, `{"$not": {...}}`; several keys in one mapping must
all hold. Values are compared with their type: the string "1" is not the number 1, and true is not 1. A field that is missing
equals nothing, so `$ne`, `$nin` and `$not` let its passage through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ragkit.errors import InputError

Filter = Mapping[str, Any]

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
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
        any_of = _join(" OR ", "0", [_equals(field, value) for value in operand])._replace(fields=[field])
        return any_of if operator == "$in" else _negate(any_of)
    if operator in _RANGES:
        if isinstance(operand, bool) or not isinstance(operand, int | float | str):
            raise InputError(f"filter {field}: {operator} takes a number or a string, got {type(operand).__name__}")
        return _holds(field, f"{_type_test(operand)} AND value {_RANGES[operator]} ?", [_bound(field, operand)])
    raise InputError(f"filter {field}: unknown operator {operator!r}; use one of {', '.join(_OPERATORS)}")


def _equals(field: str, value: Any) -> Condition:
    if value is None:
        return _holds(field, "type = 'null'", [])
    if isinstance(value, bool):
        return _holds(field, f"type = '{'true' if value else 'false'}'", [])
    if isinstance(value, int | float | str):
        return _holds(field, f"{_type_test(value)} AND value = ?", [_bound(field, value)])
    raise InputError(f"filter {field}: cannot compare with a {type(value).__name__}; use a string, number, true/false or null")


def _type_test(value: float | str) -> str:
    return "type = 'text'" if isinstance(value, str) else "type IN ('integer', 'real')"


def _bound(field: str, value: float | str) -> float | str:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"filter {field}: {value} does not fit into 64 bits")
    if isinstance(value, float) and value != value:
        raise InputError(f"filter {field}: NaN equals nothing; use a number")
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
