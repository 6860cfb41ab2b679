"""Micro-batches: what several callers ask of one model at the same time goes through it together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

from ragkit.serving.queueing import BusyError, Place, Queue, Why

T = TypeVar("T")
R = TypeVar("R")


class ClosedError(Exception):
    """The service is stopping and takes nothing more."""


class Batch(NamedTuple):
    """What is told of a batch: how many items it had, how long each of them waited, and how long the work took, in seconds."""

    items: int
    waited: list[float]
    seconds: float


@dataclass(eq=False, kw_only=True)
class _Place(Place, Generic[T]):
    item: T
    result: asyncio.Future[Any]


class Batcher(Generic[T, R]):
    """Runs `work` on batches in a thread of its own, one batch after the other.

    A batch is what has queued up while the one before it ran, so nothing waits while the model is idle. The order is that of
    arrival. An item whose caller has gone is dropped before its work begins; what runs is finished, as nothing can stop a
    thread. Who may wait is up to `Queue`, with the loop's time as its clock. All methods belong to one event loop; the batcher
    may be made outside of it.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Sequence[R | Exception]],
        *,
        most_items: int,
        most_waiting: int,
        most_weight: int | None = None,
        weigh: Callable[[T], int] = lambda item: 1,
        longest_wait: float = 0.0,
        light: float = 1.0,
        told: Callable[[Batch], None] = lambda batch: None,
        refused: Callable[[Why], None] = lambda why: None,
    ) -> None:
        """`work` returns one result per item, in order; an exception among them is its item's alone.

        If `work` raises, each item of its batch is tried alone, so that one bad item fails no other. A batch has at most
        `most_items`, which together weigh at most `most_weight`; a heavier item goes alone. `weigh` says how much of an item
        there is to read, more than 0; for `light`, see `Pace`. With a `longest_wait`, a batch that is not full waits that many
        seconds for company. `refused` is called whenever `submit` raises `BusyError`.
        """
        self._work, self._weigh, self._told, self._refused = work, weigh, told, refused
        self._longest_wait = longest_wait
        self._queue: Queue[_Place[T]] = Queue(
            most_items=most_items,
            most_weight=most_weight,
            most_waiting=most_waiting,
            longest_wait=longest_wait,
            light=light,
        )
        self._full = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ragkit-batch")
        self._closed = False

    def __len__(self) -> int:
        """How many items wait, without those that are being worked on."""
        return len(self._queue)

    def expected(self) -> float:
        """Seconds until what is here by now will be done, by estimate."""
        return 0.0 if self._loop is None else self._queue.expected(self._loop.time())

    async def submit(self, item: T, by: float = inf) -> R:
        """The result of one item; cancelling this takes the item out of the queue.

        `by` is the loop's time at which the result is of no more use; nothing is cancelled then, but what is not expected
        to be done is not begun. Raises `BusyError` for that and if the queue is full, `ClosedError` while stopping, and whatever
        the work says of this item.
        """
        if self._closed:
            raise ClosedError
        loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        place = _Place(weight=self._weigh(item), since=now, by=by, item=item, result=loop.create_future())
        try:
            self._queue.join(place, now)
            if self._queue.full_batch:
                self._full.set()
            if self._driver is None:
                self._driver = loop.create_task(self._drive())
            result: R = await place.result
            return result
        except BusyError as error:
            self._refused(error.why)
            raise
        finally:
            self._queue.leave(place)

    async def close(self, seconds: float) -> None:
        """Take nothing more, and give what is there so long to finish; what still waits then fails with `ClosedError`."""
        self._closed = True
        if self._driver is not None:
            await asyncio.wait([self._driver], timeout=seconds)
        for place in self._queue:
            if not place.result.done():
                place.result.set_exception(ClosedError())
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while len(self):
                if self._longest_wait and not self._queue.full_batch:
                    self._full.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._longest_wait)
                batch, late = self._queue.take(loop.time())
                for place in late:
                    if not place.result.done():
                        place.result.set_exception(BusyError(self.expected(), "late"))
                if batch:
                    await self._run(batch)
        finally:
            self._driver = None

    async def _run(self, batch: list[_Place[T]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        results = await loop.run_in_executor(self._thread, self._results, batch)
        ended = loop.time()
        self._queue.done(ended)
        for place, result in zip(batch, results, strict=True):
            if place.result.done():
                continue
            if isinstance(result, Exception):
                place.result.set_exception(result)
            else:
                place.result.set_result(result)
        self._told(Batch(len(batch), [started - place.since for place in batch], ended - started))

    def _results(self, batch: Sequence[_Place[T]]) -> list[R | Exception]:
        """In the thread."""
        try:
            results = list(self._work([place.item for place in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:
            if len(batch) == 1:
                return [error]
            # nobody looks at the result of an item whose caller has gone
            return [error if place.result.done() else self._results([place])[0] for place in batch]
        return results
