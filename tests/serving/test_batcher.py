"""Batches of several callers: what goes together, what fails alone, what is dropped, and what is refused."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.serving.batcher import Batch, Batcher, ClosedError
from ragkit.serving.queueing import BusyError


class Item(NamedTuple):
    n: int
    weight: int = 1
    fate: str = "fine"
    """"fine"; "wrong": an exception in its place; "poison": the whole batch raises."""


class Work:
    """Doubles numbers, remembers batches, and waits for a gate before the first of them."""

    def __init__(self, shut: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        if not shut:
            self.gate.set()

    def __call__(self, items: list[Item]) -> Sequence[int | Exception]:
        self.batches.append([item.n for item in items])
        self.entered.set()
        assert self.gate.wait(20)
        if any(item.fate == "poison" for item in items):
            raise ValueError("poison")
        return [ValueError("wrong") if item.fate == "wrong" else item.n * 2 for item in items]


async def entered(work: Work) -> None:
    assert await asyncio.to_thread(work.entered.wait, 20)


def packed(items: Sequence[Item], most_items: int, most_weight: int) -> list[list[int]]:
    """First come, first served, as many as fit."""
    batches: list[list[Item]] = []
    for item in items:
        last = batches[-1] if batches else []
        if not last or len(last) == most_items or sum(one.weight for one in last) + item.weight > most_weight:
            batches.append([item])
        else:
            last.append(item)
    return [[item.n for item in batch] for batch in batches]


ITEMS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["fine", "fine", "wrong", "poison"]), st.booleans()), max_size=20)


@settings(max_examples=60)
@given(ITEMS, st.integers(1, 6), st.integers(1, 20))
def test_everybody_gets_their_own_answer(drawn: list[tuple[int, str, bool]], most_items: int, most_weight: int) -> None:
    items = [Item(n, weight, fate) for n, (weight, fate, _) in enumerate(drawn, 1)]
    leaving = {n for n, (_, _, leaves) in enumerate(drawn, 1) if leaves}

    async def run() -> None:
        work = Work(shut=True)
        told: list[Batch] = []
        batcher: Batcher[Item, int] = Batcher(
            work,
            most_items=most_items,
            most_weight=most_weight,
            most_waiting=100,
            weigh=lambda item: item.weight,
            told=told.append,
        )
        first = asyncio.create_task(batcher.submit(Item(0)))
        await entered(work)
        tasks = {item.n: asyncio.create_task(batcher.submit(item)) for item in items}
        await asyncio.sleep(0)
        assert len(batcher) == len(items)
        for n in leaving:
            tasks[n].cancel()
        await asyncio.gather(*(tasks[n] for n in leaving), return_exceptions=True)
        stay = [item for item in items if item.n not in leaving]
        assert len(batcher) == len(stay)
        work.gate.set()
        found = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
        assert await first == 0
        for item in items:
            if item.n in leaving:
                assert isinstance(found[item.n], asyncio.CancelledError)
            elif item.fate == "fine":
                assert found[item.n] == item.n * 2
            else:
                assert str(found[item.n]) == item.fate
        # no item of a caller who has gone was ever looked at
        assert not leaving & {n for batch in work.batches for n in batch}
        expected: list[list[int]] = [[0]]
        fates = {item.n: item.fate for item in items}
        for batch in packed(stay, most_items, most_weight):
            expected.append(batch)
            if len(batch) > 1 and "poison" in {fates[n] for n in batch}:
                expected += [[n] for n in batch]  # each is tried alone
        assert work.batches == expected
        assert [batch.items for batch in told] == [1, *map(len, packed(stay, most_items, most_weight))]
        assert len(batcher) == 0
        await batcher.close(5)

    asyncio.run(run())


async def test_nothing_waits_while_nothing_runs() -> None:
    work = Work()
    batcher: Batcher[Item, int] = Batcher(work, most_items=8, most_waiting=8)
    assert [await batcher.submit(Item(n)) for n in (1, 2, 3)] == [2, 4, 6]
    assert work.batches == [[1], [2], [3]]
    await batcher.close(5)


async def test_a_batch_may_wait_for_company() -> None:
    work = Work()
    batcher: Batcher[Item, int] = Batcher(work, most_items=2, most_waiting=8, longest_wait=3600)
    first = asyncio.create_task(batcher.submit(Item(1)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.batches == []
    assert await batcher.submit(Item(2)) == 4  # full: the hour is not waited for
    assert await first == 2
    assert work.batches == [[1, 2]]
    await batcher.close(5)


async def test_a_full_queue_refuses_and_recovers() -> None:
    work = Work(shut=True)
    batcher: Batcher[Item, int] = Batcher(work, most_items=8, most_waiting=2)
    running = asyncio.create_task(batcher.submit(Item(0)))
    await entered(work)
    waiting = [asyncio.create_task(batcher.submit(Item(n))) for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError) as refused:
        await batcher.submit(Item(3))
    assert refused.value.retry_after >= 1
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    late = asyncio.create_task(batcher.submit(Item(4)))  # the place is free again
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(running, waiting[1], late) == [0, 4, 8]
    assert work.batches == [[0], [2, 4]]
    await batcher.close(5)


async def test_what_would_be_late_is_refused_or_never_begun() -> None:
    """In the loop's time, which a test moves on."""
    loop, now = asyncio.get_running_loop(), 0.0
    work, told = Work(), list[str]()
    batcher: Batcher[Item, int] = Batcher(work, most_items=1, most_waiting=8, refused=told.append)
    assert await batcher.submit(Item(9)) == 18
    work.gate.clear()
    work.entered.clear()
    clock = loop.time
    loop.time = lambda: clock() + now  # type: ignore[method-assign]
    try:
        running = asyncio.create_task(batcher.submit(Item(0), loop.time() + 1e4))
        await entered(work)
        waiting = asyncio.create_task(batcher.submit(Item(1), loop.time() + 1e4))
        await asyncio.sleep(0)
        now += 1e5
        with pytest.raises(BusyError, match="late"):  # so long has the first one taken
            await batcher.submit(Item(3), loop.time() + 1e4)
        endless = asyncio.create_task(batcher.submit(Item(4)))
        await asyncio.sleep(0)
        assert batcher.expected() == pytest.approx(2e5, rel=0.01)
        work.gate.set()
        assert await running == 0
        with pytest.raises(BusyError, match="late"):
            await waiting
        assert await endless == 8
        assert work.batches == [[9], [0], [4]]
        assert told == ["late", "late"]
    finally:
        loop.time = clock  # type: ignore[method-assign]
    await batcher.close(5)


async def test_poison_is_not_retried_for_those_who_have_gone() -> None:
    work = Work(shut=True)
    batcher: Batcher[Item, int] = Batcher(work, most_items=8, most_waiting=8)
    first = asyncio.create_task(batcher.submit(Item(0)))
    await entered(work)
    tasks = [asyncio.create_task(batcher.submit(Item(1))), asyncio.create_task(batcher.submit(Item(2, 1, "poison")))]
    await asyncio.sleep(0)
    work.entered.clear()
    work.gate.set()
    await first
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].result() == 2
    assert work.batches == [[0], [1, 2], [1], [2]]
    await batcher.close(5)


async def test_closing_finishes_what_runs_and_refuses_the_rest() -> None:
    work = Work(shut=True)
    batcher: Batcher[Item, int] = Batcher(work, most_items=1, most_waiting=8)
    running = asyncio.create_task(batcher.submit(Item(1)))
    await entered(work)
    waiting = asyncio.create_task(batcher.submit(Item(2)))
    await asyncio.sleep(0)
    await batcher.close(0.01)  # too short: the gate is shut
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await batcher.submit(Item(3))
    work.gate.set()
    assert await running == 2
    assert work.batches == [[1]]


async def test_closing_waits_for_the_queue() -> None:
    work = Work(shut=True)
    batcher: Batcher[Item, int] = Batcher(work, most_items=1, most_waiting=8)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(batcher.submit(Item(n))) for n in (1, 2, 3)]
    await entered(work)
    closing = asyncio.create_task(batcher.close(60))
    await asyncio.sleep(0)
    work.gate.set()
    await closing
    assert [task.result() for task in tasks] == [2, 4, 6]


async def test_too_few_results_are_an_error_of_the_work() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [], most_items=8, most_waiting=8)
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit(1)
    await batcher.close(5)
