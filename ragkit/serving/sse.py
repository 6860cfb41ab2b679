"""Server-sent events (WHATWG HTML, section 9.2) over ASGI, with a deadline, stopped as soon as nobody reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ragkit.serving.deadline import Deadline
from ragkit.serving.errors import Problem, stopping
from ragkit.serving.inbox import GoneError


class Event(NamedTuple):
    """A name, and JSON-serialisable data."""

    name: str
    data: Any

    def encode(self) -> bytes:
        """As it is sent: JSON has no line breaks outside of its strings, and none inside."""
        data = json.dumps(self.data, ensure_ascii=False, allow_nan=False)
        return f"event: {self.name}\ndata: {data}\n\n".encode("utf-8", "replace")


class EventStream(Response):
    """Sends events as they come.

    A failure before the first is raised, as a `Problem`, so that it has a status like any other; a later one is the last event,
    `error`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event, None], deadline: Deadline, problem: Callable[[Exception], Problem]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._events, self._deadline, self._problem = events, deadline, problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        started = False
        try:
            async with self._deadline.enforced(), aclosing(self._events) as events:
                async for event in events:
                    if not started:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        started = True
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        except GoneError:
            raise
        except asyncio.CancelledError:  # the server has waited long enough, or nobody is there to be told
            if started:
                await self._fail(send, stopping())
            raise
        except Exception as error:
            problem = self._problem(error)
            if not started:
                raise problem from error
            await self._fail(send, problem)
        else:
            await send({"type": "http.response.body", "body": b""})

    async def _fail(self, send: Send, problem: Problem) -> None:
        await send({"type": "http.response.body", "body": Event("error", problem.body).encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
