"""How fast a model has worked of late, and so how long it will take for what stands before it."""

from __future__ import annotations

_FADES = 0.8  # what a batch counts once there is a newer one: the last five or so make up the mean
_DEVIATIONS = 4  # mean ones, as Jacobson (1988) allows a network before he takes a packet for lost


class Pace:
    """A running mean of the seconds that a unit of weight takes, and of how far off it has been.

    Both are ratios of sums that fade, so a large batch says more than a small one. Seconds may be of any clock.
    """

    def __init__(self) -> None:
        self._seconds = self._weight = self._off = 0.0

    @property
    def known(self) -> bool:
        """Whether there has been a batch to learn from."""
        return self._weight > 0

    def add(self, weight: float, seconds: float) -> None:
        """A batch of this weight, more than 0, has taken this long."""
        # nothing is known of how the first one deviates
        off = abs(seconds - self.seconds(weight)) if self.known else seconds / 2
        self._seconds = _FADES * self._seconds + seconds
        self._weight = _FADES * self._weight + weight
        self._off = _FADES * self._off + off

    def seconds(self, weight: float) -> float:
        """How long this weight will take in the mean; 0 while nothing is known."""
        return weight * self._seconds / self._weight if self.known else 0.0

    def at_most(self, weight: float) -> float:
        """How long it will take if it takes long: the mean and four mean deviations."""
        return weight * (self._seconds + _DEVIATIONS * self._off) / self._weight if self.known else 0.0
