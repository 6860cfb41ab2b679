"""Who is let wait, in simulated time: a model that takes its time per unit of weight, and callers who are patient or not."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from math import ceil, inf
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.serving.pace import Pace
from ragkit.serving.queueing import BusyError, Place, Queue

Fate = str  # done, missed (its caller has gone by then), refused (at once) or late (after it has waited)


class Request(NamedTuple):
    at: float
    weight: int
    patience: float


def simulated(
    queue: Queue[Place], requests: Iterable[Request], seconds: Callable[[float], float], *, told: bool = True
) -> list[tuple[Request, Fate, float]]:
    """What becomes of each request, and when; `seconds` says how long a batch of some weight takes.

    Unless `told`, the queue knows of no deadline.
    """
    fates: list[tuple[Request, Fate, float]] = []
    waiting: dict[Place, Request] = {}
    running: list[Place] = []
    ends, to_come = inf, sorted(requests)
    while to_come or waiting or running:
        leaves = min((request.at + request.patience for place, request in waiting.items() if place not in running), default=inf)
        now = min(ends, to_come[0].at if to_come else inf, leaves)
        for place, request in [*waiting.items()]:
            if place not in running and request.at + request.patience <= now:
                queue.leave(place)
                fates.append((waiting.pop(place), "missed", now))
        if now == ends:
            queue.done(now)
            for place in running:
                request = waiting.pop(place)
                fates.append((request, "done" if now <= request.at + request.patience else "missed", now))
            running, ends = [], inf
        while to_come and to_come[0].at <= now:
            request = to_come.pop(0)
            place = Place(request.weight, now, request.at + request.patience if told else inf)
            try:
                queue.join(place, now)
                waiting[place] = request
            except BusyError:
                fates.append((request, "refused", now))
        while not running and len(queue):
            batch, late = queue.take(now)
            fates += [(waiting.pop(place), "late", now) for place in late]
            if batch:
                running, ends = batch, now + seconds(sum(place.weight for place in batch))
    return fates


def trained(queue: Queue[Place], rate: float) -> Queue[Place]:
    for _ in range(100):  # until it knows that the pace does not change, whatever the size
        for weight in (1000, 9000):
            queue.pace.add(1, weight, weight * rate)
    return queue


REQUESTS = st.lists(
    st.builds(Request, st.floats(0, 50), st.integers(1, 9), st.floats(0.1, 30)),
    max_size=40,
)


@settings(max_examples=80)
@given(REQUESTS, st.integers(1, 8), st.integers(1, 30), st.sampled_from([0.1, 1.0]))
def test_at_a_steady_pace_nothing_is_missed(drawn: list[Request], most_items: int, most_weight: int, rate: float) -> None:
    """But what has come to an idle model, and would have taken too long alone."""
    queue = trained(Queue(most_items=most_items, most_weight=most_weight, most_waiting=100), rate)
    fates = simulated(queue, drawn, lambda weight: rate * weight)
    assert len(fates) == len(drawn)
    for request, fate, at in fates:
        if fate == "missed":
            assert at - request.at >= request.patience
            assert rate * request.weight > request.patience - 1e-6
        if fate in ("refused", "late"):
            assert at <= request.at + request.patience


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.5, 60)), min_size=2, max_size=20),
    st.integers(1, 8),
    st.floats(0.1, 5),
    st.floats(0, 0.99),
)
def test_who_is_refused_against_first_come_first_served(
    drawn: list[tuple[int, float]], most_items: int, rate: float, into: float
) -> None:
    """The first is being worked on; each of the others may wait if all before it and itself can be done by its deadline."""
    queue = trained(Queue(most_items=most_items, most_waiting=100), rate)
    first = Place(drawn[0][0], 0.0, 1e9)
    queue.join(first, 0.0)
    assert queue.take(0.0).batch == [first]
    now = into * rate * first.weight
    free = rate * first.weight
    for weight, patience in drawn[1:]:
        end = free + rate * weight
        if abs(end - now - patience) < 1e-3:
            continue
        place = Place(weight, now, now + patience)
        if end <= now + patience:
            queue.join(place, now)
            free = end
        else:
            with pytest.raises(BusyError) as refused:
                queue.join(place, now)
            assert refused.value.why == "late"
            # it says when there will be time enough, if nobody else comes; a minute at most
            assert refused.value.retry_after == pytest.approx(min(60, max(1, ceil(end - now - patience))), abs=1)
        assert queue.expected(now) == pytest.approx(free - now, rel=1e-4)


def closed_loop(told: bool) -> Counter[Fate]:
    """64 callers who ask again as soon as they are answered, at 30 seconds of patience, where 64 need some 80 seconds."""
    noise = random.Random(7)
    queue: Queue[Place] = Queue(most_items=64, most_weight=40, most_waiting=256)
    fates: Counter[Fate] = Counter()
    asking = [(noise.random(), caller) for caller in range(64)]
    heapq.heapify(asking)
    waiting: dict[Place, int] = {}
    running: list[Place] = []
    ends, now = inf, 0.0
    while now < 600:
        now = min(ends, asking[0][0] if asking else inf, *(place.since + 30 for place in waiting if place not in running), inf)
        for place in [place for place in waiting if place not in running and place.since + 30 <= now]:
            queue.leave(place)
            fates["missed"] += 1
            heapq.heappush(asking, (now + 0.1, waiting.pop(place)))
        if now == ends:
            queue.done(now)
            for place in running:
                fates["done" if now <= place.since + 30 else "missed"] += 1
                heapq.heappush(asking, (now + 0.1, waiting.pop(place)))
            running, ends = [], inf
        while asking and asking[0][0] <= now:
            _, caller = heapq.heappop(asking)
            place = Place(noise.randint(5, 15), now, now + 30 if told else inf)
            try:
                queue.join(place, now)
                waiting[place] = caller
            except BusyError as error:
                fates["refused"] += 1
                heapq.heappush(asking, (now + error.retry_after, caller))
        while not running and len(queue):
            running, late = queue.take(now)
            for place in late:
                fates["late"] += 1
                heapq.heappush(asking, (now + 1, waiting.pop(place)))
            if running:
                # an eighth of a second per unit, now faster, now slower, and from the middle on half as fast
                slower = 2 if 300 < now < 400 else 1
                ends = now + slower * sum(place.weight for place in running) / 8 * noise.lognormvariate(0, 0.15)
    return fates


def test_overload_is_refused_early_and_as_much_is_done() -> None:
    with_deadlines, without = closed_loop(told=True), closed_loop(told=False)
    assert with_deadlines["missed"] <= 8  # two batches, as they cannot know that the pace is about to halve
    assert without["missed"] > 100
    assert with_deadlines["done"] > without["done"]
    assert with_deadlines["late"] < with_deadlines["done"] / 10


def waiting(queue: Queue[Place], *places: Place, now: float = 0.0) -> list[str]:
    """Who is let in: "" or why not."""
    found = []
    for place in places:
        try:
            queue.join(place, now)
            found.append("")
        except BusyError as error:
            found.append(error.why)
    return found


def test_before_a_pace_is_known_no_more_than_the_next_batch_waits() -> None:
    queue: Queue[Place] = Queue(most_items=3, most_weight=10, most_waiting=100)
    assert waiting(queue, Place(5, 0.0, 30.0)) == [""]
    queue.take(0.0)
    assert waiting(queue, Place(6, 0.0, 30.0), Place(5, 0.0, 30.0), Place(4, 0.0, 30.0)) == ["", "unsure", ""]
    assert waiting(queue, Place(1, 0.0)) == [""]  # who has no deadline cannot be late
    queue.done(5.0)
    assert waiting(queue, Place(1, 5.0, 500.0), now=5.0) == [""]


def test_what_comes_to_an_idle_model_is_always_tried() -> None:
    """So that a pace that was measured while the machine slept is found out."""
    queue: Queue[Place] = Queue(most_items=4, most_waiting=100)
    queue.pace.add(1, 1, 3600.0)
    now, rounds = 0.0, 0
    while waiting(queue, first := Place(1, now, now + 30), second := Place(1, now, now + 30), now=now) != ["", ""]:
        assert queue.take(now) == ([first], [])
        now += 0.01
        queue.done(now)
        rounds += 1
        assert rounds < 100
    assert second.ahead


def test_a_batch_that_takes_too_long_says_so_of_all_behind_it() -> None:
    queue = trained(Queue(most_items=1, most_waiting=100), 1.0)
    assert waiting(queue, Place(1, 0.0), Place(1, 0.0)) == ["", ""]
    queue.take(0.0)
    assert queue.expected(0.5) == pytest.approx(1.5, rel=1e-4)
    assert queue.expected(1.0) == pytest.approx(1.0, rel=1e-4)
    assert queue.expected(10.0) == pytest.approx(10.0, rel=0.01)  # the one that waits will take as long
    assert waiting(queue, Place(1, 10.0, 25.0), Place(1, 10.0, 35.0), now=10.0) == ["late", ""]


def test_a_batch_takes_no_more_than_lets_each_be_done_in_time() -> None:
    queue = trained(Queue(most_items=100, most_waiting=100), 1.0)
    assert waiting(queue, Place(1, 0.0)) == [""]
    queue.take(0.0)
    hurried = [Place(2, 0.5, 6.0), Place(2, 0.5, 100.0), Place(2, 0.5, 100.0), Place(1, 0.5, 100.0)]
    assert waiting(queue, *hurried, now=0.5) == [""] * 4
    queue.done(1.0)
    assert queue.take(1.0) == (hurried[:2], [])
    queue.done(5.0)
    assert queue.take(5.0) == (hurried[2:], [])


def test_what_will_be_late_goes_before_its_time_is_over() -> None:
    queue = trained(Queue(most_items=1, most_waiting=100), 1.0)
    assert waiting(queue, Place(1, 0.0)) == [""]
    queue.take(0.0)
    others = [Place(1, 0.0, by) for by in (100.0, 20.0, 2.0, 100.0)]
    assert waiting(queue, *others) == ["", "", "late", ""]
    queue.done(15.0)  # fifteen times as long as ever, and so will be the others, in the mean four times
    batch, late = queue.take(15.0)
    assert (batch, late) == ([others[0]], [others[1]])
    assert [*queue] == [others[3]]


def test_a_company_that_is_waited_for_counts() -> None:
    queue = trained(Queue(most_items=2, most_waiting=100, longest_wait=10.0), 1.0)
    assert waiting(queue, Place(1, 0.0)) == [""]
    queue.take(0.0)
    assert waiting(queue, Place(1, 0.0, 5.0), Place(1, 0.0, 13.0)) == ["late", ""]


def light_then_heavy(queue: Queue[Place], *, of: float = 3000, ahead: float = 1) -> Place:
    """Fifty light questions, each of 15 milliseconds, then one more that is being worked on, and a heavy one behind it.

    On the machine meant here a question takes 15 milliseconds, and a third of one for each token.
    """
    for _ in range(50):
        queue.pace.add(1, 1, 0.015)
    queue.join(Place(ahead, 0.0, 30.0), 0.0)
    queue.take(0.0)
    return Place(of, 0.01, 30.0)


@pytest.mark.parametrize("of", [300, 3000, 16_000])
def test_after_light_questions_only_a_heavy_one_is_not_refused(of: float) -> None:
    """It takes 5 seconds at most; where the model is never idle nobody would ever find out."""
    queue: Queue[Place] = Queue(most_items=64, most_weight=16_384, most_waiting=100, light=256)
    heavy = light_then_heavy(queue, of=of)
    assert waiting(queue, heavy, now=0.01) == [""]
    queue.done(0.015)
    assert queue.take(0.015) == ([heavy], [])
    queue.done(0.03 + of / 3000)  # and now it is known
    assert queue.pace.seconds(1, of) == pytest.approx(0.015 + of / 3000, rel=0.1)
    assert queue.pace.seconds(1, 1) < 0.05
    assert queue.pace.at_most(1, of) < 4 * queue.pace.seconds(1, of)  # it was a surprise, and not because the pace varies
    # what is in front of a second one is counted, and it is let in
    assert waiting(queue, Place(of, 1.0, 31.0), now=1.0) == [""]


def test_a_light_batch_that_is_held_up_says_little_of_heavy_ones() -> None:
    """By 0.1 s, as happens where another model has the processor: that is no hundred times as long for all that waits."""
    queue: Queue[Place] = Queue(most_items=64, most_weight=16_384, most_waiting=100, light=256)
    for _ in range(50):
        queue.pace.add(1, 1, 0.015)
        queue.pace.add(1, 3000, 1.015)
    assert waiting(queue, Place(1, 0.0, 30.0)) == [""]
    queue.take(0.0)
    assert waiting(queue, Place(3000, 0.1, 30.0), now=0.1) == [""]
    assert queue.expected(0.1) == pytest.approx(1.1, rel=0.1)


def test_after_heavy_questions_only_light_ones_are_quick() -> None:
    pace = Pace(light=256)
    for _ in range(50):
        pace.add(1, 3000, 1.0)
    assert pace.seconds(10, 30_000) == pytest.approx(10, rel=0.02)
    assert pace.seconds(1, 1) < 0.02


SIZES = st.tuples(st.integers(1, 64), st.floats(1, 20_000))


@given(st.floats(0.001, 1), st.floats(0.00001, 0.01), st.lists(SIZES, min_size=20, max_size=30))
def test_a_pace_in_two_parts_is_found(question: float, unit: float, batches: list[tuple[int, float]]) -> None:
    """Against the truth, where batches tell the two parts apart."""
    pace = Pace(light=256)
    for n, weight in [*batches, (1, 20_000.0), (64, 64.0), (1, 1.0)]:
        pace.add(n, weight, n * question + weight * unit)
    for n, weight in [(1, 1.0), (1, 20_000.0), (10, 5000.0)]:
        assert pace.seconds(n, weight) == pytest.approx(n * question + weight * unit, rel=0.05)


@given(st.integers(1, 64), st.floats(1, 20_000), st.floats(0.001, 100), st.integers(1, 50), st.floats(1, 100))
def test_after_batches_of_one_size_the_rest_lies_between_as_long_and_in_proportion(
    n: int, weight: float, seconds: float, times: int, larger: float
) -> None:
    pace = Pace(light=256)
    assert not pace.known
    assert pace.seconds(5, 5) == pace.at_most(5, 5) == 0
    for _ in range(times):
        pace.add(n, weight, seconds)
    assert pace.seconds(n, weight) == pytest.approx(seconds, rel=0.01)
    assert 0.99 * seconds <= pace.seconds(n, larger * weight) <= larger * seconds
    assert seconds / larger * 0.99 <= pace.seconds(n, weight / larger) <= seconds
    assert pace.at_most(3, 3) >= pace.seconds(3, 3)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.1, 20_000), st.floats(0, 100)), min_size=1, max_size=30))
def test_whatever_was_measured_no_size_takes_less_than_nothing_and_more_takes_longer(
    batches: list[tuple[int, float, float]],
) -> None:
    pace = Pace(light=256)
    for batch in batches:
        pace.add(*batch)
    assert 0 <= pace.seconds(1, 1) <= pace.seconds(1, 1000) <= pace.seconds(2, 1000) <= pace.at_most(2, 1000) < inf


def test_pace_forgets() -> None:
    pace = Pace()
    for _ in range(50):
        pace.add(1, 10, 10.0)
    for _ in range(50):
        pace.add(1, 10, 1.0)
    assert pace.seconds(1, 10) == pytest.approx(1.0, rel=0.01)
    assert pace.at_most(1, 10) == pytest.approx(1.0, rel=0.05)
