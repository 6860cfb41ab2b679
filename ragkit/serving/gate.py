"""What every request passes before its body is read: who asks, how much is under way; and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from secrets import token_hex

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragkit.serving.errors import Problem, busy, problem_of, stopping
from ragkit.serving.inbox import GoneError
from ragkit.serving.keys import EVERYBODY, Key, holder
from ragkit.serving.limits import Limits
from ragkit.serving.logs import of_request
from ragkit.serving.metrics import Metrics
from ragkit.serving.quotas import Quotas
from ragkit.serving.tracing import Tracing

_log = logging.getLogger(__name__)
_GONE = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
OPEN = frozenset({"/health", "/ready", "/openapi.json"})
"""Paths that need no key and are never refused."""


class Gate:
    """The outermost ASGI application of the service.

    Every answer has an `X-Request-Id`, the caller's own if it is one, and every error the same form. In `scope["state"]` the
    rest of the application finds `caller` (a `Key`), `request_id`, `arrived` (the loop's time) and `trace` (a `Request`).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Callable[[], Sequence[Key] | None],
        limits: Limits,
        metrics: Metrics,
        tracing: Tracing,
        routes: Collection[str],
        local_only: bool,
    ) -> None:
        """`keys` gives those of now, or None if everybody may ask. `routes` are the paths that metrics and spans name.

        `local_only` refuses requests whose Host is not this machine: a page in a browser could else reach the service under a
        name that it makes resolve to 127.0.0.1 (DNS rebinding).
        """
        self._app, self._keys, self._limits, self._metrics, self._tracing = app, keys, limits, metrics, tracing
        self._routes, self._local_only = frozenset(routes), local_only
        self._quotas = Quotas()
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else token_hex(8)
        route = scope["path"] if scope["path"] in self._routes else "other"
        answer = _Answer(send, request_id, self._limits.send_s)
        started = time.perf_counter()
        self._metrics.begins()
        try:
            with of_request(request_id), self._tracing.request(scope["method"], route, headers) as trace:
                scope.setdefault("state", {}).update(
                    request_id=request_id, arrived=asyncio.get_running_loop().time(), trace=trace, caller=EVERYBODY
                )
                try:
                    await self._answer(scope, receive, answer)
                finally:
                    trace.answered(answer.status, request_id)
        finally:
            self._metrics.ends(route, answer.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._pass(scope, receive, answer)
        except GoneError:
            answer.status = _GONE
        except asyncio.CancelledError:  # the server has waited long enough for requests to finish
            if not answer.started:
                await answer.problem(stopping())
            raise
        except Exception as error:
            if answer.whole and answer.status == 500:
                return  # Starlette raises what it has answered and we have logged; the server would close the connection
            if answer.started:
                _log.error("a request failed on the way", exc_info=error)
                answer.status = 500
                raise
            await answer.problem(problem_of(error, restricted=scope["state"]["caller"].filter is not None))

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        if self._local_only and not _LOCAL.fullmatch(headers.get("host", "")):
            raise Problem(403, "this service answers on this machine only, as localhost; with keys it answers everywhere")
        if scope["path"] in OPEN:
            await self._app(scope, _without_body(receive), answer)
            return
        caller = scope["state"]["caller"] = self._caller(headers)
        if scope["path"] == "/metrics":  # most wanted when there is too much to do
            if not caller.metrics:
                raise Problem(403, "this key may not read the metrics; make one with `ragkit serve-key --metrics`")
            await self._app(scope, _without_body(receive), answer)
            return
        if caller.metrics and caller is not EVERYBODY:
            raise Problem(403, "this key is for /metrics alone; make another one without --metrics")
        if self._in_flight >= self._limits.in_flight:
            raise busy("too many requests are under way; try again later", 1)
        self._quotas.enter(caller)
        self._in_flight += 1
        answer.at_end = partial(self._leave, caller)
        try:
            await self._app(scope, receive, answer)
        finally:
            answer.end()

    def _leave(self, caller: Key) -> None:
        self._in_flight -= 1
        self._quotas.leave(caller)

    def _caller(self, headers: Headers) -> Key:
        keys = self._keys()
        if keys is None:
            return EVERYBODY
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        found = holder(keys, presented.strip().encode("latin-1")) if scheme.lower() == "bearer" else None
        if found is None:
            message = "a valid key is needed, as the header `Authorization: Bearer KEY`"
            raise Problem(401, message, headers={"WWW-Authenticate": "Bearer"})
        return found


def _without_body(receive: Receive) -> Receive:
    """For what needs no body, and is answered without being counted: none is waited for, or kept."""
    begun = False

    async def told() -> Message:
        nonlocal begun
        if begun:
            return await receive()
        begun = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return told


class _Answer:
    """Sends on, with the headers that every answer has, and remembers the status.

    Raises `GoneError` if the caller does not take a part of it in time.
    """

    def __init__(self, send: Send, request_id: str, seconds: float) -> None:
        self._send, self._seconds, self._request_id = send, seconds, request_id
        self.started, self.whole, self.status = False, False, 500
        self.at_end: Callable[[], None] | None = None
        """Called once, when the last of the answer has been handed over: who has it may ask again at once, and who does not
        read it is still here."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-Id"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cache-Control"] = "no-store"
            message["headers"] = headers.raw
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if last and message.get("body"):
            # the server waits for the caller before it sends, not after: so the end goes by itself
            await self._hand_over({**message, "more_body": True})
            message = {"type": "http.response.body", "body": b""}
        await self._hand_over(message)
        if last:  # at once, before the caller's next request can be read
            self.whole = True
            self.end()

    async def _hand_over(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._send(message)
        except TimeoutError:
            if not limit.expired():
                raise
            raise GoneError from None

    def end(self) -> None:
        """Nothing more is to be done."""
        at_end, self.at_end = self.at_end, None
        if at_end is not None:
            at_end()

    async def problem(self, problem: Problem) -> None:
        """Answer with a problem, as JSON."""
        body = json.dumps(problem.body, ensure_ascii=False).encode("utf-8", "backslashreplace")
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers}
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": raw})
        await self({"type": "http.response.body", "body": body})
