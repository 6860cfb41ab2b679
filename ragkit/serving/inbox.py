"""A request's body, read whole and within limits before anything else is done; and an ear for callers who go."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragkit.serving.errors import Problem
from ragkit.serving.limits import Limits


class GoneError(Exception):
    """The caller has closed the connection, or does not read; nobody will have the answer."""


class Inbox:
    """ASGI middleware: reads the body, then runs the application, and cancels it if the caller goes.

    Raises a `Problem`, 413 or 408, for a body that is too large, however it is sent, or that does not arrive in time, and
    `GoneError` for a caller who has gone.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.body_s):
                body = await self._read(scope, receive)
        except TimeoutError:
            raise Problem(408, f"the request's body took longer than {self._limits.body_s:g} s; send it faster") from None
        gone = asyncio.create_task(_gone(receive))
        work = asyncio.ensure_future(self._app(scope, _Replay(body, gone), send))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise GoneError
            await work
        finally:
            for task in (work, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        most = self._limits.body_bytes
        too_large = Problem(413, f"the request's body has more than {most} bytes; send less, or in several requests")
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)


class _Replay:
    """What the application receives: the body at once, and later that the caller has gone."""

    def __init__(self, body: bytes, gone: asyncio.Task[Message]) -> None:
        self._body: bytes | None = body
        self._gone = gone

    async def __call__(self) -> Message:
        if self._body is None:
            return await asyncio.shield(self._gone)
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _gone(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
