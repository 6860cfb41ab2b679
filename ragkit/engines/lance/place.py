"""The URL of a store in LanceDB, and LanceDB's errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote

from ragkit.errors import InputError, MissingExtraError, StaleSnapshotError, StoreError

_SECRET = re.compile("key|secret|token|password", re.IGNORECASE)
_LONGEST = 600  # characters of LanceDB's that a message shows
_GONE = ("not found", "no longer exists", "no such file")


class Place(NamedTuple):
    """Where a store is: `lance://DIRECTORY`, or `lance+s3://BUCKET/PREFIX?OPTION=VALUE` (also `lance+gs`, `lance+az`).

    `lance:///data/index` is an absolute path, `lance://data/index` one below the working directory. The options are LanceDB's
    storage options, such as `region` and `endpoint`; credentials are best left to the environment.
    """

    uri: str
    """What LanceDB is given."""
    options: dict[str, str]
    name: str
    """The URL without options, as messages show it."""
    path: Path | None
    """The directory; None in object storage."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `InputError` for a URL that names no place."""
        scheme, _, rest = url.partition("://")
        place, _, query = rest.partition("?")
        place = unquote(place)
        if not place.strip("/") or "\0" in place:
            raise InputError(
                f"store: {url.partition('?')[0]} names no place; write lance://DIRECTORY or lance+s3://BUCKET/PREFIX"
            )
        storage = scheme.lower().partition("+")[2]
        if not storage:
            if query:
                raise InputError("store: a directory takes no options; leave out what follows the question mark")
            path = Path(place).absolute()
            return cls(str(path), {}, f"lance://{place}", path)
        return cls(f"{storage}://{place}", dict(parse_qsl(query)), f"lance+{storage}://{place}", None)


def connect(place: Place) -> Any:
    """A connection to the database there, which makes the directory. Raises `StoreError` if it cannot be reached."""
    check_installed()
    import lancedb

    with translated(place):
        return lancedb.connect(place.uri, storage_options=place.options or None)


def check_installed() -> None:
    """Raise `MissingExtraError` without LanceDB."""
    try:
        import lancedb
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("a store in LanceDB", "lance") from error
    del lancedb, pyarrow


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raises the engine's errors as `StoreError`s of one line, as `StaleSnapshotError` where what was read is cleaned up."""
    try:
        yield
    except (InputError, StoreError):
        raise
    except (ValueError, RuntimeError, OSError) as error:
        message = " ".join(str(error).split())
        if any(sign in message.lower() for sign in _GONE):
            raise StaleSnapshotError(f"{place.name}: what was read has been replaced and cleaned up; search again") from None
        for option, value in place.options.items():
            if value and _SECRET.search(option):
                message = message.replace(value, "***")
        raise StoreError(f"{place.name}: {_shortened(message)}") from None


def _shortened(message: str) -> str:
    """What was tried stands at the beginning, why it failed at the end, before a place in LanceDB's own source."""
    message = message.partition(", location: Location {")[0]
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 4]} ... {message[-_LONGEST * 3 // 4 :]}"
