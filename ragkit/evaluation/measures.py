"""Measures of rankings, over all questions and for each of them; computed by ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ragkit.errors import InputError, MissingExtraError

MEASURES = ("nDCG@10", "R@100", "MRR@10")
"""What is measured if nothing else is asked for."""


class Measured(NamedTuple):
    """The values of each measure, by the name that it was asked for under."""

    overall: dict[str, float]
    each: dict[str, dict[str, float]]
    """Measure to question to value."""


def parse_measures(names: Sequence[str]) -> dict[str, Any]:
    """Measures of ir-measures by their names.

    Raises `InputError` for one that it does not know or cannot compute, or that is named twice: call this before a long run.
    """
    try:
        import ir_measures
    except ImportError:
        raise MissingExtraError("evaluation", "eval") from None
    found: dict[str, Any] = {}
    for name in names:
        if name in found:
            raise InputError(f"measure: {name} is named twice")
        try:
            measure = ir_measures.parse_measure(name)
            # trec_eval ends the whole process over a cutoff of 0
            if measure.params.get("cutoff", 1) < 1:
                raise ValueError("its cutoff is less than 1")
            ir_measures.calc_aggregate([measure], {"question": {"document": 1}}, {"question": {"document": 1.0}})
        except Exception as error:
            why = " ".join(f"{type(error).__name__} {error}".split())
            raise InputError(
                f"measure: {name!r} cannot be computed by ir-measures ({why:.100}); try nDCG@10, R@100, MRR@10, AP or P@5"
            ) from None
        found[name] = measure
    return found


def measure_rankings(
    rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], names: Sequence[str] = MEASURES
) -> Measured:
    """What rankings (question to document ids, best first) are worth by judgements (question to document to relevance).

    The questions are those with judgements; one without a ranking counts as 0, as in trec_eval run with -c.
    """
    wanted = parse_measures(names)
    import ir_measures

    # some measures divide by the number of documents of a question that the run has
    run = {
        question: {document: float(len(ids) - rank) for rank, document in enumerate(ids)}
        for question, ids in rankings.items()
        if ids
    }
    judged = {question: dict(its) for question, its in qrels.items()}
    overall, every = ir_measures.evaluator(list(wanted.values()), judged).calc(run)
    each: dict[Any, dict[str, float]] = {measure: {} for measure in wanted.values()}
    for metric in every:
        each[metric.measure][metric.query_id] = float(metric.value)
    return Measured(
        {name: float(overall[measure]) for name, measure in wanted.items()},
        {name: each[measure] for name, measure in wanted.items()},
    )
