"""JSON and JSON Lines: one source per record."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ragkit.documents.blocks import text_blocks
from ragkit.documents.lines import BOM, is_white
from ragkit.documents.model import Mark, Skipped, Source
from ragkit.documents.pdf import well_formed
from ragkit.documents.provenance import KEY
from ragkit.documents.unreadable import EmptyFile, UnreadableFile

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Record(NamedTuple):
    number: int
    value: Any
    problem: str = ""


def read_records(
    data: bytes, name: str, text_field: str, decode: Callable[[bytes, str], str]
) -> tuple[list[Source], list[Skipped]]:
    """The sources of a JSON file or, by its name, of a JSON Lines file, and the records that are of no use.

    Raises `UnreadableFile` if there is no usable record at all, which is an `EmptyFile` if there is no record.
    """
    if name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            raise UnreadableFile(name, "broken gzip") from None
    text = decode(data, name)
    by_line = not name.lower().endswith(".json")
    records = [_checked(record, text_field) for record in (_by_line(text) if by_line else _whole(text, name))]
    ids = Counter(_own_id(record) for record in records)
    sources, skipped = [], []
    for record in records:
        label = _label(record, ids)
        if record.problem:
            skipped.append(Skipped(f"{name}#{label}", record.problem))
        else:
            sources.append(_source(record, name, label, text_field, by_line))
    if not records:
        raise EmptyFile(name, "no records")
    if not sources:
        raise UnreadableFile(name, f"record {skipped[0].path.rpartition('#')[2]}: {skipped[0].reason}")
    return sources, skipped


def _by_line(text: str) -> Iterator[_Record]:
    for number, line in enumerate(text.removeprefix(BOM).split("\n"), 1):
        if line.strip():
            try:
                yield _Record(number, _parse(line))
            except ValueError as error:
                yield _Record(number, None, f"invalid JSON in line {number}: {_reason(error)}")


def _whole(text: str, name: str) -> list[_Record]:
    try:
        value = _parse(text.removeprefix(BOM))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UnreadableFile(name, f"invalid JSON in line {line}: {_reason(error)}") from None
    return [_Record(number, item) for number, item in enumerate(value if isinstance(value, list) else [value], 1)]


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
        return _well_formed(value) if _SURROGATE.search(text) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _reason(error: ValueError) -> str:
    return str(getattr(error, "msg", error))


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def _checked(record: _Record, text_field: str) -> _Record:
    return record if record.problem else record._replace(problem=_problem(record.value, text_field))


def _problem(value: Any, text_field: str) -> str:
    if not isinstance(value, dict):
        return "not a JSON object"
    if text_field not in value:
        return f"no field {text_field!r}; there are: {', '.join(map(repr, value)) or 'none'}"
    text = value[text_field]
    if not isinstance(text, str):
        return f"field {text_field!r} is not a string"
    if all(map(is_white, text)):
        return f"field {text_field!r} is empty"
    if KEY in value:
        return f"field {KEY!r} is reserved; rename it"
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return "holds a number that is too large"
    return ""


def _own_id(record: _Record) -> str | None:
    if record.problem:
        return None
    found = (record.value[key] for key in ("_id", "id") if key in record.value)
    return next((str(value) for value in found if isinstance(value, str | int) and not isinstance(value, bool)), None)


def _label(record: _Record, ids: Counter[str | None]) -> str:
    """The record's own id if no other record has it, else its number, set apart from ids that look the same."""
    own = _own_id(record)
    if own is not None and ids[own] == 1:
        return own
    label = str(record.number)
    while label in ids:
        label = f"@{label}"
    return label


def _source(record: _Record, name: str, label: str, text_field: str, by_line: bool) -> Source:
    text = record.value[text_field]
    title = record.value.get("title")
    used = {text_field, "title"} if isinstance(title, str) else {text_field}
    return Source(
        name=f"{name}#{label}",
        file=name,
        text=text,
        blocks=text_blocks(text),
        title=title if isinstance(title, str) else "",
        lines=_line_marks(text, record.number) if by_line else (),
        metadata={key: value for key, value in record.value.items() if key not in used},
    )


def _line_marks(text: str, number: int) -> tuple[Mark, ...]:
    """All of a record's text is on one line of the file, whatever newlines it contains."""
    return (Mark(0, number), *(Mark(match.end(), number) for match in re.finditer("\n", text)))
