"""How far planted passages get."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from ragkit.chains.pipeline import Pipeline
from ragkit.compressor import Compressor
from ragkit.evaluation.experiment import Traced
from ragkit.pruners.base import Pruner


class Exposure(NamedTuple):
    """Means over questions, each from 0 to 1."""

    reached: float
    """The share of questions with a planted passage in the context."""
    share: float
    """The share of the context's characters that planted passages have; 0 for an empty context."""
    rank: float
    """1 / the rank of the best planted passage among all that were found; 0 if none was."""


def exposure(traced: Iterable[Traced], planted: Set[str]) -> Exposure:
    """Of the runs of questions, at least one, given the ids of all that was planted, for whichever question."""
    each = [_of_question(its, planted) for its in traced]
    reached, share, rank = (sum(values) / len(each) for values in zip(*each, strict=True))
    return Exposure(reached, share, rank)


def defended(pipeline: Pipeline, *defences: Compressor) -> Pipeline:
    """The pipeline with rerankers in front of its first pruner, or at the end if there is none."""
    at = next((n for n, stage in enumerate(pipeline.stages) if isinstance(stage, Pruner)), len(pipeline.stages))
    return pipeline.model_copy(update={"stages": [*pipeline.stages[:at], *defences, *pipeline.stages[at:]]})


def _of_question(traced: Traced, planted: Set[str]) -> Exposure:
    lengths = [(shown.id in planted, len(shown.text)) for shown in traced.shown]
    whole, theirs = (sum(n for bad, n in lengths if bad or every) for every in (True, False))
    rank = next((rank for rank, id_ in enumerate(traced.ranking(), 1) if id_ in planted), 0)
    return Exposure(float(any(bad for bad, _ in lengths)), theirs / whole if whole else 0.0, 1 / rank if rank else 0.0)
