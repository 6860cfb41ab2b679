"""Cascades: a cheap strategy over all, then dearer ones over the best of what came before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ragkit.errors import InputError
from ragkit.rerankers.strategies.base import Ranked, Round, Staged, Strategy
from ragkit.rerankers.strategies.relay import advance, renumbered


def cascade(stages: Sequence[tuple[Callable[[int, int], Strategy], int]], n: int, k: int) -> Strategy:
    """Stages of (`make(n, k)`, depth): each reranks the best `depth` of what came before (Nogueira et al. 2019, duoBERT).

    A stage's candidate 0 is the best so far, so that its ties go to the stage before. It is asked for as many as are still
    needed: k, or what a later stage reads. Questions come as `Staged`, so that each stage can have a judge of its own. Calls and
    rounds are the sums of the stages'. There are no scores, as those of different stages do not compare.
    """
    for _, depth in stages:
        if depth < 1:
            raise InputError(f"the depth of a stage must be at least 1, not {depth}")
    return _cascade(stages, n, k)


def _cascade(stages: Sequence[tuple[Callable[[int, int], Strategy], int]], n: int, k: int) -> Strategy:
    order = list(range(n))
    for stage, (make, depth) in enumerate(stages if k > 0 else ()):
        head, behind = order[:depth], order[depth:]
        needed = max([k, *(later for _, later in stages[stage + 1 :])])
        inner = renumbered(make(len(head), min(needed, len(head))), head)
        step = advance(inner)
        while isinstance(step, Round):
            answers = yield Round([Staged(stage, question) for question in step.questions], [*step.ranking, *behind])
            step = advance(inner, answers)
        order = [*step.order, *behind]
    return Ranked(order)
