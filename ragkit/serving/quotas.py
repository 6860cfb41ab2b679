"""How often, and how many times at once, a key may ask."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from math import ceil

from ragkit.serving.errors import busy
from ragkit.serving.keys import Key


class Quotas:
    """A token bucket (Turner 1986) per key for its rate, and a count for what it has under way. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._running = Counter[str]()

    def enter(self, key: Key) -> None:
        """Count a request that begins. Raises a `Problem`, 429, if it is one too many; it is then not counted."""
        if key.concurrent is not None and self._running[key.name] >= key.concurrent:
            raise busy(f"this key may have {key.concurrent} requests under way; wait for one to end", 1)
        if key.requests_per_minute is not None:
            self._spend(key.name, key.requests_per_minute)
        self._running[key.name] += 1

    def leave(self, key: Key) -> None:
        """A request that entered has ended."""
        self._running[key.name] -= 1
        if not self._running[key.name]:
            del self._running[key.name]

    def _spend(self, name: str, per_minute: int) -> None:
        now = self._clock()
        left, then = self._left.get(name, (float(per_minute), now))
        left = min(float(per_minute), left + (now - then) * per_minute / 60)
        if left < 1:
            self._left[name] = (left, now)
            raise busy(f"this key may ask {per_minute} times a minute; try again later", ceil((1 - left) * 60 / per_minute))
        self._left[name] = (left - 1, now)
