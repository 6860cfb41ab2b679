"""Requests side by side in threads, up to a deadline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import TypeVar

from ragkit.llms.base import Cost, DeadlineError

A = TypeVar("A")

_MOST = 64
"""Threads, where nobody sets a limit."""


def seconds_left(until: float | None) -> float | None:
    """Seconds to a time of `time.monotonic`, 0 once it has passed; None if there is none."""
    return None if until is None else max(0.0, until - time.monotonic())


def run_until(works: Sequence[Callable[[], A]], limit: int | None = None, until: float | None = None) -> list[A | Exception]:
    """What each work returns, or its exception in its place; at most `limit` are under way at once.

    At `until` those under way are left to themselves, as a thread cannot be stopped, those that wait never begin, and both are
    `DeadlineError`s. What is left to itself does not keep the process from ending.
    """
    found: list[A | BaseException] = [DeadlineError()] * len(works)
    waiting = deque((at, copy_context(), work) for at, work in enumerate(works))
    missing, closed = len(works), seconds_left(until) == 0
    changed = threading.Condition()

    def serve() -> None:
        nonlocal missing
        while True:
            with changed:
                if closed or not waiting:
                    return
                at, context, work = waiting.popleft()
                found[at] = DeadlineError(Cost())
            try:
                result: A | BaseException = context.run(work)
            except BaseException as error:
                result = error
            with changed:
                if closed:
                    return
                found[at] = result
                missing -= 1
                if not missing:
                    changed.notify_all()

    for _ in range(0 if closed else min(len(works), limit or _MOST)):
        # daemons, as threads of a pool would keep the interpreter from ending
        threading.Thread(target=serve, daemon=True, name="ragkit-request").start()
    with changed:
        try:
            changed.wait_for(lambda: not missing, seconds_left(until))
        finally:  # an interrupt, too, leaves nothing to be sent
            closed = True
    return [_no_interrupt(one) for one in found]


def _no_interrupt(result: A | BaseException) -> A | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result
