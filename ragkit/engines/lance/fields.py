"""Metadata as two lists that LanceDB can compare, and filters as its SQL, with the semantics of `ragkit.corpus.filters`.

A passage has the names of its fields (`keys`) and, in the same order, their values (`held`), all as bytes. A value begins with
a letter for its type, and what follows is such that the order of bytes is that of numbers, and of texts by code points. So one
comparison of bytes serves every operator, and nothing a user wrote ever stands in the SQL but as hexadecimal digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ragkit.corpus.filters import Condition, Dialect, Filter

_NUMBER, _TEXT = b"n", b"s"
_CONSTANTS = {None: b"z", True: b"t", False: b"f"}
_COMPOUND = b"l"
_BIAS = 2_048


def fields_of(metadata: str) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of a passage's metadata, which is JSON; lists and mappings equal nothing, they are only there."""
    fields = json.loads(metadata)
    return list(map(key_of, fields)), list(map(value_of, fields.values()))


def key_of(field: str) -> bytes:
    """The name of a field as it is kept."""
    return field.encode("utf-8", "surrogatepass")


def value_of(value: Any) -> bytes:
    """A value as it is kept: integers and floats that are equal give the same bytes, -0.0 those of 0."""
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, str):
        return _TEXT + value.encode("utf-8", "surrogatepass")
    return _NUMBER + _number(value) if isinstance(value, int | float) else _COMPOUND


def to_sql(filter: Filter) -> Condition:
    """A filter as LanceDB's SQL, without parameters. Raises what `Dialect.condition` raises."""
    return _LANCE.condition(filter)


def has_field(field: str) -> str:
    """The condition that a passage has the field."""
    return f"array_has(keys, {_literal(key_of(field))})"


def _number(value: float) -> bytes:
    """Sign, exponent and 64 bits of the fraction, big end first: exact for every float and every integer of 64 bits."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf if value > 0 else -math.inf
    if not value:
        return b"\1"
    if isinstance(value, int):
        exponent = abs(value).bit_length()
        fraction = abs(value) << (64 - exponent)
    elif math.isinf(value):
        exponent, fraction = _BIAS - 1, 0
    else:
        part, exponent = math.frexp(abs(value))
        fraction = int(part * 2**64)
    size = (exponent + _BIAS).to_bytes(2, "big") + fraction.to_bytes(8, "big")
    return b"\2" + size if value > 0 else b"\0" + bytes(255 - byte for byte in size)


def _one_of(field: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
    listed = ", ".join(_literal(value) for value in dict.fromkeys(map(value_of, values)))
    return (f"coalesce({_value(field)} IN ({listed}), false)" if listed else "false"), []


def _compare(field: str, sign: str, bound: float | str) -> tuple[str, list[Any]]:
    value, kept = _value(field), value_of(bound)
    kind = kept[:1]
    # nothing of another type: all values of a type lie between its letter and the next one
    other = f"{value} < {_literal(bytes([kind[0] + 1]))}" if sign in (">", ">=") else f"{value} >= {_literal(kind)}"
    return f"coalesce({value} {sign} {_literal(kept)} AND {other}, false)", []


def _value(field: str) -> str:
    return f"array_element(held, cast(array_position(keys, {_literal(key_of(field))}) AS bigint))"


def _literal(value: bytes) -> str:
    return f"X'{value.hex()}'"


_LANCE = Dialect(_one_of, _compare)
