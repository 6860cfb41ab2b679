"""How fast a model has worked of late, and so how long it will take for what stands before it."""

from __future__ import annotations

_FADES = 0.8  # what a batch counts once there is a newer one: the last five or so make up the estimate
_DEVIATIONS = 4  # mean ones, as Jacobson (1988) allows a network before he takes a packet for lost
_RIDGE = 0.01  # of a batch of one light question: decides what batches leave open, and changes little of what they say


class Pace:
    """Seconds of a batch, as so much for each question and so much for each unit of weight, and how far off that has been.

    Least squares over batches that fade, neither part below 0, with a ridge (Hoerl and Kennard 1970). Batches of one size alone
    cannot tell the two parts apart; then the ridge does, by what is taken for `light`: what light questions take is theirs
    whatever they weigh, what heavy ones take is their weight's. So the estimate for a size that was never seen lies between as
    long as those that were, and longer in proportion. Seconds may be of any clock.
    """

    def __init__(self, light: float = 1.0) -> None:
        """`light` is the weight of a question whose work takes about as long as everything around it."""
        self._light = light
        self._nn = self._nw = self._ww = self._ns = self._ws = self._seconds = self._off = 0.0
        self._question = self._unit = 0.0

    @property
    def known(self) -> bool:
        """Whether there has been a batch to learn from."""
        return self._nn > 0

    def add(self, questions: int, weight: float, seconds: float) -> None:
        """A batch of so many questions, at least one, and of this weight together, more than 0, has taken this long."""
        # of how the first batch of a size deviates nothing is known: half of it at most
        off = min(abs(seconds - self.seconds(questions, weight)), seconds / 2)
        n, w = questions, weight / self._light
        self._nn = _FADES * self._nn + n * n
        self._nw = _FADES * self._nw + n * w
        self._ww = _FADES * self._ww + w * w
        self._ns = _FADES * self._ns + n * seconds
        self._ws = _FADES * self._ws + w * seconds
        self._seconds = _FADES * self._seconds + seconds
        self._off = _FADES * self._off + off
        self._fit()

    def seconds(self, questions: int, weight: float) -> float:
        """How long these will take in the mean; 0 while nothing is known."""
        return questions * self._question + weight * self._unit

    def at_most(self, questions: int, weight: float) -> float:
        """How long they will take if it takes long: the mean and four mean deviations."""
        slow = 1 + _DEVIATIONS * self._off / self._seconds if self._seconds else 1.0
        return slow * self.seconds(questions, weight)

    def _fit(self) -> None:
        nn, ww = self._nn + _RIDGE, self._ww + _RIDGE
        determinant = nn * ww - self._nw**2
        question, unit = (ww * self._ns - self._nw * self._ws) / determinant, (nn * self._ws - self._nw * self._ns) / determinant
        if unit < 0:
            question, unit = self._ns / nn, 0.0
        elif question < 0:
            question, unit = 0.0, self._ws / ww
        self._question, self._unit = question, unit / self._light
