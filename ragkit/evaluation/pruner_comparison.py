"""Pruners run over a sentence-labelled dataset, and what came of it, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from langchain_core.documents import Document

from ragkit.compressor import CompressorInput
from ragkit.documents.provenance import provenance
from ragkit.documents.spans import inside
from ragkit.errors import RagkitError
from ragkit.evaluation.pruning import (
    Curve,
    Point,
    Ranking,
    Scored,
    ScoredPassage,
    curve,
    gold_first,
    measure,
    ranking,
    threshold_for,
)
from ragkit.evaluation.sentences import LabelledPassage, SentenceDataset
from ragkit.pruners.base import Pruner

SHARE = 0.95
"""The share of gold sentences that pruners are compared at."""

_CHUNK = 16  # questions at a time: bounds memory


@dataclass(frozen=True)
class Result:
    """What one pruner made of one dataset."""

    name: str
    scored: Scored
    configured: Point
    """What the pruner itself decided, with its own threshold and rules."""
    threshold: float
    """The largest threshold that keeps 95% of the gold sentences."""
    at_threshold: Point
    curve: Curve
    first: float
    """Share of passages with gold sentences in which one of them has the best score."""
    ranking: Ranking


def evaluate_pruners(
    dataset: SentenceDataset, pruners: Mapping[str, Pruner], progress: Callable[[int, int], None] | None = None
) -> list[Result]:
    """Run each pruner over all questions; `progress` is told how many of how many are done, pruners times questions.

    The pruners are not changed. `drop_empty` is switched off on a copy, so that every passage comes back with its scores.
    """
    total = len(pruners) * len(dataset.questions)
    results = []
    for n, (name, pruner) in enumerate(pruners.items()):
        passages: list[ScoredPassage] = []
        complete = pruner.model_copy(update={"drop_empty": False})
        for start in range(0, len(dataset.questions), _CHUNK):
            chunk = dataset.questions[start : start + _CHUNK]
            asked = [CompressorInput(query=q.text, documents=[passage.document for passage in q.passages]) for q in chunk]
            for number, (question, documents) in enumerate(zip(chunk, complete.batch(asked), strict=True), start):
                found = {document.id: document for document in documents}
                passages += [_scored(name, number, passage, found) for passage in question.passages]
            if progress is not None:
                progress(n * len(dataset.questions) + start + len(chunk), total)
        results.append(summarise(name, Scored.of(passages)))
    return results


def summarise(name: str, scored: Scored) -> Result:
    """Everything that the tables show of a pruner."""
    threshold = threshold_for(scored, SHARE)
    return Result(
        name=name,
        scored=scored,
        configured=measure(scored, scored.kept),
        threshold=threshold,
        at_threshold=measure(scored, scored.scores >= threshold),
        curve=curve(scored),
        first=gold_first(scored),
        ranking=ranking(scored),
    )


def _scored(name: str, question: int, passage: LabelledPassage, found: Mapping[str | None, Document]) -> ScoredPassage:
    units = provenance(passage.document).units or ()
    record = provenance(found.get(passage.document.id, passage.document))
    if record.unit_scores is None or len(record.unit_scores) != len(units):
        raise RagkitError(f"{name}: gave no sentence scores for passage {passage.document.id!r}; it must return every passage")
    gold = np.zeros(len(units), dtype=np.bool_)
    gold[list(passage.gold)] = True
    return ScoredPassage(
        question=question,
        scores=np.array(record.unit_scores, dtype=np.float64),
        lengths=np.array([unit.end - unit.start for unit in units], dtype=np.int64),
        gold=gold,
        kept=np.array([inside(unit, record.spans or ()) for unit in units], dtype=np.bool_),
        relevance=record.stages[-1].score if record.stages else None,
    )
