"""What every pruner does around its model: score units, keep some, and return verbatim spans."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray
from pydantic import Field

from ragkit.compressor import Compressor, Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import StageResult, passage_text, provenance, with_provenance
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import inside, join_spans, merge_units
from ragkit.encoders.languages import iso_code
from ragkit.indexes.base import Scores

_log = logging.getLogger(__name__)


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
    def score_units(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Scores]]:
        """For each question and document one score per unit; units are offsets into `passage_text(document)`.

        A document with a score that is not finite is kept whole, with a warning.
        """

    @abstractmethod
    def select(self, scores: Sequence[Scores]) -> list[NDArray[np.bool_]]:
        """Which units to keep, for all documents of one question."""

    def process(self, tasks: Sequence[Task]) -> list[list[Document]]:
        """See `Compressor.process`."""
        busy = [task for task in tasks if task.documents]
        code = iso_code(self.language)
        units = [[_remaining_units(document, code) for document in task.documents] for task in busy]
        scores = self.score_units(busy, units) if busy else []
        answers = iter([self._shorten(*parts) for parts in zip(busy, units, scores, strict=True)])
        return [next(answers) if task.documents else [] for task in tasks]

    def _shorten(self, task: Task, units: Sequence[Sequence[Unit]], scores: Sequence[Scores]) -> list[Document]:
        shortened = []
        for document, its_units, its_scores, keep in zip(task.documents, units, scores, self.select(scores), strict=True):
            if np.isfinite(its_scores).all():
                best = np.argsort(-its_scores, kind="stable")[: self.min_sentences]
                keep = keep.copy()
                keep[best] = True
            else:
                _log.warning("%s gave scores that are not finite; kept %s whole", type(self).__name__, document.id)
                its_scores, keep = np.zeros_like(its_scores), np.ones_like(keep)
            if keep.any() or not self.drop_empty:
                shortened.append((document, its_units, its_scores, keep))
        return [self._document(*parts, rank) for rank, parts in enumerate(shortened, 1)]

    def _document(
        self, document: Document, units: Sequence[Unit], scores: Scores, keep: NDArray[np.bool_], rank: int
    ) -> Document:
        record, text = provenance(document), passage_text(document)
        # from all units: what an earlier pruner dropped parts the neighbours it lay between
        everything = units_of(document, iso_code(self.language))
        kept = {unit for unit, its_keep in zip(units, keep, strict=True) if its_keep}
        known = dict(zip(units, map(float, scores), strict=True))
        spans = merge_units(everything, [unit in kept for unit in everything])
        short = Document(id=document.id, page_content=join_spans(text, spans), metadata=document.metadata)
        return with_provenance(
            short,
            record,
            passage=text,
            spans=spans,
            units=everything,
            unit_scores=tuple(known.get(unit, 0.0) for unit in everything),
            stages=(*record.stages, StageResult(self.stage, None, rank)),
        )


def _remaining_units(document: Document, language: str) -> list[Unit]:
    spans = provenance(document).spans
    units = units_of(document, language)
    return list(units) if spans is None else [unit for unit in units if inside(unit, spans)]
