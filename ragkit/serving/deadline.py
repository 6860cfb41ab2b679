"""By when a request must be done: what it asks for, cut to what the service allows, from the moment it arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import inf
from typing import NamedTuple

from starlette.requests import Request

from ragkit.serving.errors import Problem, too_late
from ragkit.serving.limits import Limits

HEADER = "X-Timeout-S"
_at: ContextVar[float] = ContextVar("deadline", default=inf)


def current() -> float:
    """The event loop's time by which whatever runs now must be done; infinite outside of a request."""
    return _at.get()


class Deadline(NamedTuple):
    """`at` is in the event loop's time."""

    at: float
    seconds: float

    @classmethod
    def of(cls, request: Request, timeout_s: float | None, limits: Limits) -> Deadline:
        """From the body's `timeout_s`, the header `X-Timeout-S`, whichever is less, or else the service's own.

        Raises a `Problem`, 422, for a header that is no positive number.
        """
        given = [seconds for seconds in (timeout_s, _header(request)) if seconds is not None]
        seconds = min(min(given, default=limits.timeout_s), limits.most_timeout_s)
        return cls(request.state.arrived + seconds, seconds)

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancels what is inside when the time is over. Raises a `Problem`, 504, then."""
        outside = _at.set(self.at)
        try:
            async with asyncio.timeout_at(self.at) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise  # somebody else's
            raise too_late(self.seconds) from None
        finally:
            _at.reset(outside)


def _header(request: Request) -> float | None:
    given = request.headers.get(HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Problem(422, f"{HEADER}: takes a positive number of seconds", HEADER)
    return seconds
