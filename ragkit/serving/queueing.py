"""Who may wait for a model, what goes through it together, and who is told to come again because it would be too late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Generic, Literal, NamedTuple, TypeVar

from ragkit.serving.pace import Pace

Why = Literal["full", "late", "unsure"]
"""Why something may not wait: there is no room; it would not be done by its deadline; nobody knows yet how long work takes."""
_LONGEST_RETRY = 60


class BusyError(Exception):
    """Too much is to be done before this; `retry_after` is in how many whole seconds to try again."""

    def __init__(self, retry_after: float, why: Why) -> None:
        super().__init__(f"too much is waiting: {why}")
        self.retry_after = min(_LONGEST_RETRY, max(1, ceil(retry_after)))
        self.why = why


@dataclass(eq=False)
class Place:
    """A place in a queue. Times are seconds of the queue's clock."""

    weight: float
    """How much there is to read; more than 0. Only ratios count."""
    since: float
    by: float = inf
    """When it must be done."""
    ahead: bool = True
    """Whether anything stood before it when it came. What came to an idle model is always tried: else a pace that was once
    measured wrongly would never be measured again."""


P = TypeVar("P", bound=Place)


class Taken(NamedTuple, Generic[P]):
    """What goes through the model next, and what has to go because it would be too late."""

    batch: list[P]
    late: list[P]


class Queue(Generic[P]):
    """First come, first served, in batches; one batch at a time. It has no clock: each call is told what time it is.

    What is expected to be late is refused at once: a caller who is told early can ask elsewhere, and work for callers who no
    longer wait delays all others. Admission counts with the pace at its slowest, as pace changes while something waits;
    what waits already is given up only once the mean says that it will be late.
    """

    def __init__(
        self,
        *,
        most_items: int,
        most_waiting: int,
        most_weight: float | None = None,
        longest_wait: float = 0.0,
        light: float = 1.0,
    ) -> None:
        """A batch has at most `most_items`, which together weigh at most `most_weight`; a heavier one goes alone.

        `longest_wait` is how many seconds a batch that is not full waits for company. For `light`, see `Pace`.
        """
        self._most_items, self._most_waiting, self._longest_wait = most_items, most_waiting, longest_wait
        self._most_weight = inf if most_weight is None else most_weight
        self._waiting: dict[P, None] = {}
        self._running, self._running_weight, self._began = 0, 0.0, 0.0
        self.pace, self._light = Pace(light), light

    def __len__(self) -> int:
        """How many wait, without those that are being worked on."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[P]:
        """Those who wait, first come first."""
        return iter([*self._waiting])

    @property
    def full_batch(self) -> bool:
        """Whether a batch could not have more than what waits."""
        return len(self) >= self._most_items or self._weight >= self._most_weight

    def join(self, place: P, now: float) -> None:
        """Take a place at the end. Raises `BusyError`, and then it has none."""
        place.ahead = bool(self._waiting or self._running)
        if len(self) >= self._most_waiting:
            raise BusyError(self.expected(now), "full")
        if place.ahead and place.by < inf:
            if not self.pace.known and not self._in_next_batch(place):
                raise BusyError(1, "unsure")
            late = now + self._until_free(now, [place], slow=True) - place.by
            if late > 0:
                raise BusyError(late, "late")
        self._waiting[place] = None

    def leave(self, place: P) -> None:
        """Give up a place, if it has not been taken."""
        self._waiting.pop(place, None)

    def clear(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()

    def expected(self, now: float) -> float:
        """Seconds until what is here by now will be done, in the mean; 0 while nothing is known."""
        return self._until_free(now, [], slow=False)

    def take(self, now: float) -> Taken[P]:
        """The next batch, which begins now unless it is empty, and all who would be late by what is known now.

        A batch takes no more than lets each in it be done in time.
        """
        batch: list[P] = []
        late: list[P] = []
        weight, by, open_ = 0.0, inf, True
        count = 1  # with the one that is looked at
        for place in self:
            together = weight + place.weight
            if open_ and batch:
                in_time = now + self.pace.at_most(count, together) <= min(by, place.by)
                open_ = len(batch) < self._most_items and together <= self._most_weight and in_time
            estimate = self.pace.at_most if open_ and not batch else self.pace.seconds
            if place.ahead and now + estimate(count, together) > place.by:
                late.append(place)
                continue
            if open_:
                batch.append(place)
                by = min(by, place.by)
            weight, count = together, count + 1
        for place in (*batch, *late):
            del self._waiting[place]
        self._running, self._running_weight, self._began = len(batch), sum(place.weight for place in batch), now
        return Taken(batch, late)

    def done(self, now: float) -> None:
        """The batch that was taken has been worked on."""
        self.pace.add(self._running, self._running_weight, now - self._began)
        self._running = 0

    @property
    def _weight(self) -> float:
        return sum(place.weight for place in self._waiting)

    def _in_next_batch(self, place: P) -> bool:
        return len(self) < self._most_items and self._weight + place.weight <= self._most_weight

    def _until_free(self, now: float, more: Sequence[P], *, slow: bool) -> float:
        """Seconds until what is here and `more` will be done."""
        wait = 0.0 if self.full_batch else self._longest_wait
        estimate = self.pace.at_most if slow else self.pace.seconds
        count, weight = len(self) + len(more), self._weight + sum(place.weight for place in more)
        if not self._running:
            return wait + estimate(count, weight)
        elapsed, whole = now - self._began, estimate(self._running, self._running_weight)
        if elapsed <= whole or not self.pace.known:
            return max(0.0, whole - elapsed) + wait + estimate(count, weight)
        # a batch that takes longer than it should says so of all that come after it
        now_at = Pace(self._light)
        now_at.add(self._running, self._running_weight, elapsed)
        return wait + max(estimate(count, weight), now_at.seconds(count, weight))
