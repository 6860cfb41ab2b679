"""Micro-batches: what several callers ask of one model at the same time goes through it together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import ceil
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_LONGEST_RETRY = 60


class BusyError(Exception):
    """So much waits already that nothing more is taken; `retry_after` is in how many whole seconds to try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too much is waiting")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The service is stopping and takes nothing more."""


class Batch(NamedTuple):
    """What is told of a batch: how many items it had, how long each of them waited, and how long the work took, in seconds."""

    items: int
    waited: list[float]
    seconds: float


class _Place(Generic[T, R]):
    def __init__(self, item: T, weight: int, result: asyncio.Future[R], since: float) -> None:
        self.item, self.weight, self.result, self.since = item, weight, result, since


class Batcher(Generic[T, R]):
    """Runs `work` on batches in a thread of its own, one batch after the other.

    A batch is what has queued up while the one before it ran, so nothing waits while the model is idle. The order is that of
    arrival. An item whose caller has gone is dropped before its work begins; what runs is finished, as nothing can stop a
    thread. All methods belong to one event loop; the batcher may be made outside of it.
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
        told: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        """`work` returns one result per item, in order; an exception among them is its item's alone.

        If `work` raises, each item of its batch is tried alone, so that one bad item fails no other. A batch has at most
        `most_items`, which together weigh at most `most_weight`; a heavier item goes alone. With a `longest_wait`, a batch that
        is not full waits that many seconds for company.
        """
        self._work, self._weigh, self._told = work, weigh, told
        self._most_items, self._most_weight, self._most_waiting = most_items, most_weight, most_waiting
        self._longest_wait = longest_wait
        self._waiting: dict[int, _Place[T, R]] = {}
        self._full = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ragkit-batch")
        self._pace = 0.0  # seconds per item, of late
        self._closed = False

    def __len__(self) -> int:
        """How many items wait, without those that are being worked on."""
        return len(self._waiting)

    async def submit(self, item: T) -> R:
        """The result of one item; cancelling this takes the item out of the queue.

        Raises `BusyError` if the queue is full, `ClosedError` while stopping, and whatever the work says of this item.
        """
        if self._closed:
            raise ClosedError
        if len(self._waiting) >= self._most_waiting:
            raise BusyError(min(_LONGEST_RETRY, max(1, ceil(self._pace * len(self._waiting)))))
        loop = asyncio.get_running_loop()
        place = _Place[T, R](item, self._weigh(item), loop.create_future(), loop.time())
        self._waiting[id(place)] = place
        if self._is_full():
            self._full.set()
        if self._driver is None:
            self._driver = loop.create_task(self._drive())
        try:
            return await place.result
        finally:
            self._waiting.pop(id(place), None)

    async def close(self, seconds: float) -> None:
        """Take nothing more, and give what is there so long to finish; what still waits then fails with `ClosedError`."""
        self._closed = True
        if self._driver is not None:
            await asyncio.wait([self._driver], timeout=seconds)
        for place in [*self._waiting.values()]:
            if not place.result.done():
                place.result.set_exception(ClosedError())
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _drive(self) -> None:
        try:
            while self._waiting:
                if self._longest_wait and not self._is_full():
                    self._full.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._longest_wait)
                if batch := self._take():
                    await self._run(batch)
        finally:
            self._driver = None

    def _is_full(self) -> bool:
        if len(self._waiting) >= self._most_items:
            return True
        return self._most_weight is not None and sum(place.weight for place in self._waiting.values()) >= self._most_weight

    def _take(self) -> list[_Place[T, R]]:
        batch: list[_Place[T, R]] = []
        weight = 0
        for place in self._waiting.values():
            weight += place.weight
            too_heavy = self._most_weight is not None and weight > self._most_weight
            if batch and (len(batch) == self._most_items or too_heavy):
                break
            batch.append(place)
        for place in batch:
            del self._waiting[id(place)]
        return batch

    async def _run(self, batch: list[_Place[T, R]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        results = await loop.run_in_executor(self._thread, self._results, batch)
        seconds = loop.time() - started
        self._pace = seconds / len(batch)
        for place, result in zip(batch, results, strict=True):
            if place.result.done():
                continue
            if isinstance(result, Exception):
                place.result.set_exception(result)
            else:
                place.result.set_result(result)
        self._told(Batch(len(batch), [started - place.since for place in batch], seconds))

    def _results(self, batch: Sequence[_Place[T, R]]) -> list[R | Exception]:
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
