"""Which configuration to use: what is dominated, what a goal allows, and a choice that holds on questions it was not made on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, sqrt
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.spans import Span
from ragkit.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_ERRORS = 2.0
"""With one standard error, every twentieth choice on 30 to 100 training questions of scifact and squad lost more than .005
nDCG@10 on the other training questions; with two, fewer than one in a hundred. For fewer questions see `errors_needed`."""


class Costed(Protocol):
    """What a question costs."""

    @property
    def ms(self) -> float:
        """Milliseconds."""
        ...

    @property
    def calls(self) -> float:
        """Calls of a language model."""
        ...


class Goal(NamedTuple):
    """The most that a question may cost."""

    ms: float = inf
    calls: float = inf

    def allows(self, costed: Costed) -> bool:
        """Whether it costs no more than that."""
        return costed.ms <= self.ms and costed.calls <= self.calls


class Option(NamedTuple):
    """A configuration that may be chosen."""

    name: str
    values: Callable[[Ints], Floats]
    """Numbers of the questions that it may be fitted on, to its value at each of all questions [questions]."""
    ms: float
    calls: float = 0.0


class Choice(NamedTuple):
    """What was chosen, and how much better it is than the default at questions that had no say."""

    option: Option
    value: float
    """Its mean value, fitted on all questions."""
    gain: float
    """Mean over questions of what was chosen without their fold, less the default."""
    error: float
    """Standard error of that mean."""


def choose(options: Sequence[Option], default: Option, goal: Goal, *, folds: int = 5) -> Choice:
    """The option with the highest mean value of those that the goal allows, if that choice holds; else the default.

    The choice is repeated without each fold (question i is in fold i modulo `folds`) and judged by the questions of the fold. It
    holds if these gain more than two standard errors over the default, and somewhat more where they are few. Of equally good
    options the cheapest is taken. A default that the goal does not allow is never chosen. Raises `InputError` if it allows
    nothing, or for fewer than two questions.
    """
    allowed = sorted((option for option in options if goal.allows(option)), key=lambda option: (option.calls, option.ms))
    if not allowed:
        cheapest = min(options, key=lambda option: (option.calls, option.ms))
        raise InputError(
            f"goal: nothing costs at most {goal.ms:g} ms and {goal.calls:g} calls; allow more: "
            f"the cheapest, {cheapest.name}, costs {cheapest.ms:.1f} ms and {cheapest.calls:g} calls"
        )
    everything = np.arange(len(default.values(np.arange(0))))
    if len(everything) < 2:
        raise InputError(f"questions: choosing needs at least two, not {len(everything)}")
    fold = everything % min(folds, len(everything))
    differences = np.zeros(len(everything))
    for f in np.unique(fold):
        rest, held_out = np.flatnonzero(fold != f), fold == f
        best = _best([option.values(rest) for option in allowed], rest)
        differences[held_out] = best[held_out] - default.values(rest)[held_out]
    gain, error = float(differences.mean()), float(differences.std(ddof=1)) / sqrt(len(differences))
    values = [option.values(everything) for option in allowed]
    means = np.array([its_values.mean() for its_values in values])
    at = int(np.argmax(means > means.max() - 1e-12))
    if goal.allows(default) and gain <= errors_needed(len(differences)) * error:
        return Choice(default, float(default.values(everything).mean()), gain, error)
    return Choice(allowed[at], float(means[at]), gain, error)


def errors_needed(questions: int) -> float:
    """Standard errors that mean of so few questions what `_ERRORS` mean of many.

    Student's quantile, to the first term of Fisher's expansion (1925).
    """
    return _ERRORS + (_ERRORS**3 + _ERRORS) / (4 * (questions - 1))


def _best(values: Sequence[Floats], questions: Ints) -> Floats:
    """The values with the highest mean over some questions; the first of those that differ by rounding only."""
    means = np.array([its_values[questions].mean() for its_values in values])
    return values[int(np.argmax(means > means.max() - 1e-12))]


class Priced(Costed, Protocol):
    """What a configuration is worth and costs."""

    @property
    def value(self) -> float:
        """The more, the better."""
        ...


P = TypeVar("P", bound=Priced)


def pareto(points: Sequence[P]) -> list[P]:
    """The points that no other beats in value, milliseconds or calls without losing in another; cheapest first."""

    def beaten(point: P) -> bool:
        return any(_at_least(other, point) and not _at_least(point, other) for other in points)

    return sorted((point for point in points if not beaten(point)), key=lambda point: (point.calls, point.ms, -point.value))


def _at_least(one: Priced, other: Priced) -> bool:
    return one.value >= other.value and one.ms <= other.ms and one.calls <= other.calls


class Marked(NamedTuple):
    """Evidence in one passage: where its gold sentences are, and its units with the pruner's scores [units]."""

    gold: Sequence[Span]
    units: Sequence[Span]
    scores: Floats


def evidence_kept(passages: Sequence[Marked], thresholds: Sequence[float]) -> Floats:
    """Share of the gold sentences, in characters of each, that units with scores above each threshold cover [thresholds].

    NaN if there is no gold sentence.
    """
    shares = [
        [
            sum(max(0, min(end, its_end) - max(start, its_start)) for its_start, its_end in kept) / (end - start)
            for passage in passages
            for kept in [[unit for unit, score in zip(passage.units, passage.scores, strict=True) if score > threshold]]
            for start, end in passage.gold
        ]
        for threshold in thresholds
    ]
    return np.array([np.mean(its_shares) if its_shares else np.nan for its_shares in shares])


def choose_threshold(
    questions: Sequence[Sequence[Marked]], thresholds: Sequence[float], keep: float, folds: int = 5
) -> float | None:
    """The highest threshold at which at least `keep` of the evidence is kept, whichever fold of the questions is left out.

    A question's evidence counts as much as another's. None if there is none, or no threshold keeps so much. Folds are as in
    `choose`; questions without evidence count in no fold.
    """
    rows = [evidence_kept(passages, thresholds) for passages in questions if any(passage.gold for passage in passages)]
    if not rows:
        return None
    table = np.stack(rows)
    fold = np.arange(len(table)) % min(folds, len(table))
    parts = [table[fold != f] for f in np.unique(fold)] if len(table) > 1 else [table]
    # 0.95 means 0.95, whatever floating point makes of it
    held = np.all([part.mean(0) >= keep - 1e-9 for part in parts], axis=0)
    return max((threshold for threshold, its_held in zip(thresholds, held, strict=True) if its_held), default=None)
