"""How candidates moved from stage to stage, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ragkit.chains.context import GroundedContext, StageTrace


class Step(NamedTuple):
    """Where one stage put a candidate: its 1-based rank and its score, None if it was not among the results."""

    rank: int | None
    score: float | None = None
    moved: int | None = None
    """Ranks climbed since the stage before (negative: fallen); None if there was none, or it did not return the candidate."""


class Way(NamedTuple):
    """One candidate's way: a step per stage of the trace, and the number of its passage in the context, if it is there."""

    id: str
    steps: tuple[Step, ...]
    n: int | None


def ways(context: GroundedContext) -> list[Way]:
    """The way of every document that any stage returned: first those that came furthest, by their rank there."""
    placed = [_places(stage) for stage in context.trace]
    numbers = {passage.id: passage.n for passage in context.passages}
    found = [Way(id, _steps(id, placed), numbers.get(id)) for id in dict.fromkeys(id for places in placed for id in places)]
    return sorted(found, key=lambda way: [step.rank or math.inf for step in reversed(way.steps)])


def fate(way: Way, trace: Sequence[StageTrace]) -> str:
    """What became of a candidate, in words."""
    if way.n is not None:
        return f"passage {way.n}"
    last = max(at for at, step in enumerate(way.steps) if step.rank is not None)
    if last + 1 == len(trace):
        return "not in the context"
    after = trace[last + 1]
    if (way.steps[last].rank or 0) > after.entered:
        return f"cut: {after.entered} went on to {after.stage}"
    return f"dropped by {after.stage}"


def _places(stage: StageTrace) -> dict[str, tuple[int, float | None]]:
    places: dict[str, tuple[int, float | None]] = {}
    for rank, (id, score) in enumerate(stage.results, 1):
        places.setdefault(id, (rank, score))
    return places


def _steps(id: str, placed: Sequence[dict[str, tuple[int, float | None]]]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for places in placed:
        rank, score = places.get(id, (None, None))
        before = steps[-1].rank if steps else None
        steps.append(Step(rank, score, None if rank is None or before is None else before - rank))
    return tuple(steps)
