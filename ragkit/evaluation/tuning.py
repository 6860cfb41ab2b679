"""Which configuration to use: what is dominated, what a goal allows, and a choice that holds on questions it was not made on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import inf, sqrt
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.spans import Span
from ragkit.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_ERRORS = 1.0
"""Standard errors that a change must gain. See docs/evaluation.md for what less and more of them come to."""


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


S = TypeVar("S", bound=Hashable)


class Choice(NamedTuple, Generic[S]):
    """What was chosen, and how much better it is than what it started from at questions that had no say."""

    setting: S
    start: S
    gain: float
    """Mean over questions of what was chosen without their fold, less the start."""
    error: float
    """Standard error of that mean."""


def allowed(options: Mapping[S, Option], goal: Goal) -> dict[S, Option]:
    """The options that the goal allows, cheapest first. Raises `InputError` if there are none."""
    within = {setting: option for setting, option in options.items() if goal.allows(option)}
    if not within:
        cheapest = min(options.values(), key=lambda option: (option.calls, option.ms))
        raise InputError(
            f"goal: nothing costs at most {goal.ms:g} ms and {goal.calls:g} calls; allow more: "
            f"the cheapest, {cheapest.name}, costs {cheapest.ms:.1f} ms and {cheapest.calls:g} calls"
        )
    return dict(sorted(within.items(), key=lambda item: (item[1].calls, item[1].ms)))


def choose(
    options: Mapping[S, Option], start: S, parts: Sequence[Callable[[S], Iterable[S]]], questions: int, *, folds: int = 5
) -> Choice[S]:
    """Where `climb` leads from the start on all questions, if that holds on questions that were held out; else the start.

    The climb is repeated without each fold (question i is in fold i modulo `folds`) and judged by the questions of the fold. It
    holds if these gain in the mean. Raises `InputError` for fewer than two questions.
    """
    if questions < 2:
        raise InputError(f"questions: choosing needs at least two, not {questions}")
    everything = np.arange(questions)
    fold = everything % min(folds, questions)
    differences = np.zeros(questions)
    for f in np.unique(fold):
        rest, held_out = np.flatnonzero(fold != f), fold == f
        reached = options[climb(options, start, parts, rest)]
        differences[held_out] = (reached.values(rest) - options[start].values(rest))[held_out]
    gain, error = float(differences.mean()), _error(differences)
    return Choice(climb(options, start, parts, everything) if gain > 0 else start, start, gain, error)


def climb(options: Mapping[S, Option], start: S, parts: Sequence[Callable[[S], Iterable[S]]], questions: Ints) -> S:
    """What is reached from the start by changing one part after the other, as these questions have it.

    Each of `parts` names what a setting becomes if that part is changed; what is not among the options is left out. Of these
    the one is taken that gains most over the setting so far, less the standard error of the mean gain: a gain that few questions
    bear out counts little, and one below its error is none. Of equals the cheapest is taken.
    """
    for part in parts:
        before = options[start].values(questions)[questions]
        worth = {start: 0.0}
        for setting in dict.fromkeys(part(start)):
            if setting in options and setting != start:
                gains = options[setting].values(questions)[questions] - before
                worth[setting] = round(float(gains.mean()) - _ERRORS * _error(gains), 9)
        start = max(worth, key=lambda setting: (worth[setting], -options[setting].calls, -options[setting].ms))
    return start


def _error(values: Floats) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1)) / sqrt(len(values))


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
