"""Metadata filters as SQL over the column `fields` (jsonb), with the semantics of `ragkit.corpus.filters`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ragkit.corpus.filters import Condition, Dialect, Filter
from ragkit.engines.postgres.characters import encodable, written

_LOOKED_UP = 16  # values that are looked up in the index of the fields one by one; more are compared with each passage


def to_sql(filter: Filter) -> Condition:
    """The SQL of a filter over a table `p`. Raises what `Dialect.condition` raises."""
    return _POSTGRES.condition(filter)


def fields_of(metadata: str) -> str:
    """What filters see of a passage's metadata, both as JSON: its scalars; lists and mappings are only there."""
    fields = json.loads(metadata)
    return json.dumps({text_of_field(key): _value(value) for key, value in fields.items()}, ensure_ascii=False)


def _one_of(field: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    key = text_of_field(field)
    if len(values) > _LOOKED_UP:
        listed = [json.dumps(_value(value), ensure_ascii=False) for value in values]
        return "coalesce((p.fields -> %s) = ANY(%s::jsonb[]), false)", [key, listed]
    tests = [json.dumps({key: _value(value)}, ensure_ascii=False) for value in values]
    return f"({' OR '.join(['p.fields @> %s::jsonb'] * len(tests)) or 'false'})", list(tests)


def _compare(field: str, sign: str, bound: float | str) -> tuple[str, list[Any]]:
    key = text_of_field(field)
    if isinstance(bound, str):
        kind, test, given = "string", f'(p.fields ->> %s) COLLATE "C" {sign} %s', text_of_field(bound)
    else:
        # as `fields` has it: what Python shows of numbers of other classes, such as numpy's, is no number to the server
        kind, test, given = "number", f"(p.fields ->> %s)::numeric {sign} %s::numeric", json.dumps(bound)
    # only CASE promises that a cast is not tried on what is no number
    return f"CASE WHEN jsonb_typeof(p.fields -> %s) = '{kind}' THEN {test} ELSE false END", [key, key, given]


_POSTGRES = Dialect(_one_of, _compare)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return text_of_field(value)
    return [] if isinstance(value, list | dict) else value


def text_of_field(text: str) -> str:
    """A name or value as `fields` has it; a lone surrogate, which it refuses, is spelled out, as no other character is."""
    kept = written(text)
    return "".join(f"\1\3{ord(c):x}" if "\ud800" <= c <= "\udfff" else c for c in kept) if not encodable(kept) else kept
