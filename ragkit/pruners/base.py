"""What every pruner does around its model: score units, keep some, and return verbatim spans."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray
from pydantic import Field

from ragkit.compressor import Compressor, Outcome, Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import StageResult, passage_text, provenance, with_provenance, with_stages
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import inside, join_spans, merge_units
from ragkit.encoders.languages import iso_code
from ragkit.indexes.base import Scores

_log = logging.getLogger(__name__)


class Judgement(NamedTuple):
    """What a pruner makes of one document: a score per unit, and one for the whole passage if it gives one."""

    units: Scores
    passage: float | None = None


class Pruner(Compressor):
    """Returns the same documents, each shortened to the sentences worth keeping, as exact slices of its passage.

    `metadata["ragkit"]` then holds the whole passage, the kept spans, and every unit's score. Pruning a pruned document again
    only looks at what is left of it; the rest has score 0.
    """

    language: str = "english"
    """Language of the text, by name or ISO code: for sentence boundaries of documents that ragkit did not split."""
    min_sentences: int = Field(default=0, ge=0)
    """Keep at least this many units of every document, the best first."""
    drop_empty: bool = True
    """Leave out documents of which nothing is kept; otherwise they come back with an empty text."""

    @property
    def stage(self) -> str:
        """Name under which the stage is recorded in `metadata["ragkit"]`."""
        return "prune"

    @abstractmethod
    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Judgement]]:
        """A judgement of each document of each question; units are offsets into `passage_text(document)`.

        A document with a unit score that is not finite is kept whole; this is logged, and counted as `failures` in the usage.
        """

    @abstractmethod
    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """Which units to keep, for all documents of one question."""

    def process(self, tasks: Sequence[Task]) -> list[Outcome]:
        """See `Compressor.process`."""
        code = iso_code(self.language)
        busy = [task for task in tasks if task.documents]
        units = [[_remaining_units(document, code) for document in task.documents] for task in busy]
        judged = self.judge(busy, units) if busy else []
        answers = iter([self._shorten(*parts) for parts in zip(busy, units, judged, strict=True)])
        return [next(answers) if task.documents else Outcome([]) for task in tasks]

    def _shorten(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> Outcome:
        shortened, failures = [], 0
        for document, its_units, judgement, keep in zip(
            task.documents, units, judgements, self.select(task, units, judgements), strict=True
        ):
            scores = judgement.units
            if np.isfinite(scores).all():
                best = np.argsort(-scores, kind="stable")[: self.min_sentences]
                keep = keep.copy()
                keep[best] = True
            else:
                _log.warning("%s gave scores that are not finite; kept %s whole", type(self).__name__, document.id)
                failures += 1
                scores, keep = np.zeros_like(scores), np.ones_like(keep)
            if keep.any() or not self.drop_empty:
                shortened.append((document, its_units, Judgement(scores, judgement.passage), keep))
        documents = [self._document(*parts, rank) for rank, parts in enumerate(shortened, 1)]
        return Outcome(documents, {"failures": failures} if failures else {})

    def _document(
        self, document: Document, units: Sequence[Unit], judgement: Judgement, keep: NDArray[np.bool_], rank: int
    ) -> Document:
        record, text = provenance(document), passage_text(document)
        # from all units: what an earlier pruner dropped parts the neighbours it lay between
        everything = units_of(document, iso_code(self.language))
        kept = {unit for unit, its_keep in zip(units, keep, strict=True) if its_keep}
        known = dict(zip(units, map(float, judgement.units), strict=True))
        spans = merge_units(everything, [unit in kept for unit in everything])
        pruned = Document(id=document.id, page_content=join_spans(text, spans), metadata=document.metadata)
        scores = tuple(known.get(unit, 0.0) for unit in everything)
        shown = with_provenance(pruned, record, passage=text, spans=spans, units=everything, unit_scores=scores)
        return with_stages(shown, StageResult(self.stage, judgement.passage, rank))


def _remaining_units(document: Document, language: str) -> list[Unit]:
    spans = provenance(document).spans
    units = units_of(document, language)
    return list(units) if spans is None else [unit for unit in units if inside(unit, spans)]
