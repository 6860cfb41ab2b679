"""What a caller is told when something is wrong: a status, the field, what to do; never how the service works inside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ragkit.errors import InputError, StaleSnapshotError
from ragkit.serving.batcher import ClosedError
from ragkit.serving.queueing import BusyError

_log = logging.getLogger(__name__)
# what an error of the pipeline may begin with, and the field of the request that it is about
_FIELDS = {
    "filter": "filter",
    "query": "query",
    "pattern": "query",
    "k": "k",
    "max_tokens": "max_tokens",
    "max_passages": "max_passages",
}


class Problem(Exception):
    """An answer that is none: HTTP status, message, the field of the request that it is about, headers."""

    def __init__(self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": {"field": self.field, "message": self.message}}


def busy(message: str, retry_after: int) -> Problem:
    """429, with the whole seconds after which to try again."""
    return Problem(429, message, headers={"Retry-After": str(retry_after)})


def too_late(seconds: float) -> Problem:
    """504."""
    return Problem(504, f"not done within {seconds:g} s; ask for less, or allow more with timeout_s", "timeout_s")


def stopping() -> Problem:
    """503, on the way out."""
    return Problem(503, "the service is stopping; try another, or later", headers={"Retry-After": "1"})


def problem_of(error: Exception, *, restricted: bool) -> Problem:
    """What to tell of an error; all that is not the caller's doing is logged, and told in general terms only.

    A `restricted` caller may see a part of the passages: an error of the pipeline could speak of the others.
    """
    match error:
        case Problem():
            return error
        case BusyError(why="late"):
            return busy(
                "it would not be done in time, so much waits; try again later, or allow more with timeout_s", error.retry_after
            )
        case BusyError():
            return busy("too many requests wait for the model; try again later", error.retry_after)
        case ClosedError():
            return stopping()
        case StaleSnapshotError():
            return Problem(503, "the index was replaced while it was read; try again", headers={"Retry-After": "1"})
        case InputError() if field := _field(str(error)):
            if not restricted:
                return Problem(422, str(error), field)
            _log.warning("answered 422 in general terms: %s", error)
            say = f"{field}: what the request asks for, or the key's own filter, cannot be applied to the passages of this key"
            return Problem(422, f"{say}; change it, or ask whoever runs the service, whose log says why", field)
    _log.error("a request failed", exc_info=error)
    return Problem(500, "the service failed on this request; its log says why, under the X-Request-Id of this answer")


def _field(message: str) -> str | None:
    """The field of the request that a message begins with: "filter: ...", "k must be ..."."""
    word = message.partition(" ")[0].rstrip(":")
    return _FIELDS.get(word)
