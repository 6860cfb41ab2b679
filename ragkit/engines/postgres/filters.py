"""Metadata filters as SQL over the column `fields` (jsonb), with the semantics of `ragkit.corpus.filters`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ragkit.corpus.filters import Filter, compile_filter
from ragkit.engines.postgres.characters import written

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LOOKED_UP = 16  # values that are looked up in the index of the fields one by one; more are compared with each passage


class Condition(NamedTuple):
    """A WHERE expression that is true or false, never null, with its parameters."""

    sql: str
    parameters: list[Any]


def to_sql(filter: Filter) -> Condition:
    """The SQL of a filter over a table `p`. Raises `InputError` for what `compile_filter` refuses."""
    compile_filter(filter)
    return _mapping(filter)


def fields_of(metadata: str) -> str:
    """What filters see of a passage's metadata, both as JSON: its scalars; lists and mappings are only there."""
    fields = json.loads(metadata)
    return json.dumps({text_of_field(key): _value(value) for key, value in fields.items()}, ensure_ascii=False)


def _mapping(filter: Filter) -> Condition:
    return _join(" AND ", "true", [_entry(key, value) for key, value in filter.items()])


def _entry(key: str, value: Any) -> Condition:
    match key:
        case "$and":
            return _join(" AND ", "true", [_mapping(part) for part in value])
        case "$or":
            return _join(" OR ", "false", [_mapping(part) for part in value])
        case "$not":
            return _negated(_mapping(value))
    if isinstance(value, Mapping):
        return _join(" AND ", "true", [_operator(key, operator, operand) for operator, operand in value.items()])
    return _one_of(key, [value])


def _operator(field: str, operator: str, operand: Any) -> Condition:
    match operator:
        case "$eq":
            return _one_of(field, [operand])
        case "$ne":
            return _negated(_one_of(field, [operand]))
        case "$in":
            return _one_of(field, list(operand))
        case "$nin":
            return _negated(_one_of(field, list(operand)))
    kind, cast = ("string", 'COLLATE "C"') if isinstance(operand, str) else ("number", "::numeric")
    key = text_of_field(field)
    # only CASE promises that a cast is not tried on what is no number
    test = f"(p.fields ->> %s) {cast} {_RANGES[operator]} %s{'' if isinstance(operand, str) else '::numeric'}"
    bound = text_of_field(operand) if isinstance(operand, str) else repr(operand)
    return Condition(f"CASE WHEN jsonb_typeof(p.fields -> %s) = '{kind}' THEN {test} ELSE false END", [key, key, bound])


def _one_of(field: str, values: Sequence[Any]) -> Condition:
    key = text_of_field(field)
    if len(values) > _LOOKED_UP:
        listed = [json.dumps(_value(value), ensure_ascii=False) for value in values]
        return Condition("coalesce((p.fields -> %s) = ANY(%s::jsonb[]), false)", [key, listed])
    tests = [json.dumps({key: _value(value)}, ensure_ascii=False) for value in values]
    return _join(" OR ", "false", [Condition("p.fields @> %s::jsonb", [test]) for test in tests])


def _negated(condition: Condition) -> Condition:
    return Condition(f"NOT ({condition.sql})", condition.parameters)


def _join(operator: str, empty: str, parts: Sequence[Condition]) -> Condition:
    if not parts:
        return Condition(empty, [])
    return Condition(f"({operator.join(part.sql for part in parts)})", [value for part in parts for value in part.parameters])


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return text_of_field(value)
    return [] if isinstance(value, list | dict) else value


def text_of_field(text: str) -> str:
    """A name or value as `fields` has it; a lone surrogate, which it refuses, is spelled out, as no other character is."""
    kept = written(text)
    return "".join(f"\1\3{ord(c):x}" if "\ud800" <= c <= "\udfff" else c for c in kept) if not _encodable(kept) else kept


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
