"""Who counts as under way, and for how long, at the level of ASGI messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragkit.serving.limits import Limits

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")

Message = dict[str, Any]


def gate_before(app: Any, limits: Limits) -> Any:
    from ragkit.serving.gate import Gate
    from ragkit.serving.inbox import Inbox
    from ragkit.serving.metrics import Metrics
    from ragkit.serving.tracing import Tracing

    inbox = Inbox(app, limits)
    return Gate(
        inbox, keys=lambda: None, limits=limits, metrics=Metrics(), tracing=Tracing(), routes=["/v1/search"], local_only=False
    )


async def answers(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "http.request"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 1000})


class Caller:
    """Sends a request, and takes the answer only while `reads` is set, as a server with flow control shows it."""

    def __init__(self, gate: Any, path: str = "/v1/search", parts: tuple[Message, ...] = ({"type": "http.request"},)) -> None:
        self.reads, self.got, self._parts = asyncio.Event(), list[Message](), list(parts)
        scope = {"type": "http", "path": path, "method": "POST", "headers": []}
        self.task = asyncio.create_task(gate(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._parts:
            return self._parts.pop(0)
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async def _send(self, message: Message) -> None:
        if any(one.get("body") for one in self.got):  # the server's buffer is full
            await self.reads.wait()
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])


async def test_who_does_not_read_counts_until_it_is_given_up() -> None:
    gate = gate_before(answers, Limits(in_flight=2, send_s=0.05))
    stuck = [Caller(gate) for _ in range(2)]
    while not all(any(one.get("body") for one in caller.got) for caller in stuck):
        await asyncio.sleep(0)
    refused = Caller(gate)
    refused.reads.set()
    await refused.task
    assert refused.status == 429
    await asyncio.gather(*(caller.task for caller in stuck))  # in time, nobody waits for them any longer
    assert gate._in_flight == 0


async def test_who_has_the_answer_may_ask_again_at_once() -> None:
    """Before the last message reaches anybody else, its request has ended."""
    gate = gate_before(answers, Limits(in_flight=1))
    for _ in range(3):
        caller = Caller(gate)
        caller.reads.set()
        while len(caller.got) < 3:
            await asyncio.sleep(0)
        again = Caller(gate)
        again.reads.set()
        await asyncio.gather(caller.task, again.task)
        assert (caller.status, again.status) == (200, 200)
        assert b"".join(one.get("body", b"") for one in caller.got) == b"x" * 1000


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_what_is_not_counted_waits_for_no_body(path: str) -> None:
    gate = gate_before(answers, Limits(in_flight=1))
    caller = Caller(gate, path, ({"type": "http.request", "body": bytes(1000), "more_body": True},))
    caller.reads.set()
    await asyncio.wait_for(caller.task, 10)
    assert caller.status == 200
