"""JSON Lines, plain or gzipped, in which every fault is named with its file, line and field."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from ragkit.errors import InputError

T = TypeVar("T")


def read_lines(path: Path, kind: TypeAdapter[T], *, strict: bool = False) -> Iterator[tuple[str, T]]:
    """Each line's place ("FILE, line 3") and value; blank lines are passed over. `strict` converts no types.

    Reads `path`, or the gzipped file beside it with `.gz` appended. Raises `InputError` for a file that cannot be read and a
    line that is not of this kind.
    """
    with readable(path), open_packed(path) as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                place = f"{path}, line {number}"
                try:
                    value = kind.validate_json(text, strict=strict)
                except ValidationError as error:
                    raise InputError(f"{place}: {first_fault(error).replace('at line 1 column', 'at column')}") from None
                yield place, value


def open_packed(path: Path) -> gzip.GzipFile | BinaryIO:
    """The file's bytes, unpacked if its name ends in `.gz` or only its gzipped neighbour exists."""
    packed = path.with_name(path.name + ".gz")
    if path.suffix == ".gz":
        return gzip.open(path)
    return gzip.open(packed) if packed.exists() and not path.exists() else path.open("rb")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while a file is read into an `InputError` that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from None


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts the place in front of what an `InputError` says."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def first_fault(error: ValidationError) -> str:
    """The first of a validation's complaints on one line, with the field it is about."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"].removeprefix("Value error, ")
