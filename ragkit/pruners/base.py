"""What every pruner does around its model: score units, keep some, and return verbatim spans."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray
from pydantic import Field

from ragkit.compressor import Compressor, Outcome, Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import StageResult, passage_text, provenance, with_provenance, with_stages
from ragkit.documents.sentences import units_of
from ragkit.documents.spans import Span, inside, join_spans, merge_units
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

        A document with a score that is not finite is kept whole; this is logged, and counted as `failures` in the usage.
        """

    @abstractmethod
    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """Which units to keep, for all documents of one question."""

    def arrange(self, judgements: Sequence[Judgement]) -> Sequence[int]:
        """Which documents of one question go on, in what order, as indices; all of them in theirs if not overridden."""
        return range(len(judgements))

    def adjust(
        self,
        task: Task,
        units: Sequence[Sequence[Unit]],
        judgements: Sequence[Judgement],
        keep: Sequence[NDArray[np.bool_]],
    ) -> Sequence[NDArray[np.bool_]]:
        """The last word on what is kept, for what depends on other units and documents; `keep` is right if not overridden.

        `keep` is what `select` chose, `min_sentences` asks for, and all of a document whose scores are not finite.
        """
        return keep

    def process(self, tasks: Sequence[Task]) -> list[Outcome]:
        """See `Compressor.process`."""
        code = iso_code(self.language)
        busy = [task for task in tasks if task.documents]
        units = [[_remaining_units(document, code) for document in task.documents] for task in busy]
        judged = self.judge(busy, units) if busy else []
        answers = iter([self._shorten(*parts) for parts in zip(busy, units, judged, strict=True)])
        return [next(answers) if task.documents else Outcome([]) for task in tasks]

    def _shorten(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> Outcome:
        broken = [not _finite(judgement) for judgement in judgements]
        for document in compress(task.documents, broken):
            _log.warning("%s gave scores that are not finite; kept %s whole", type(self).__name__, document.id)
        sound = [
            Judgement(np.zeros(len(judgement.units)), None) if is_broken else judgement
            for judgement, is_broken in zip(judgements, broken, strict=True)
        ]
        order = self.arrange(sound)
        task = task._replace(documents=[task.documents[at] for at in order])
        units, judgements = [units[at] for at in order], [sound[at] for at in order]
        chosen = self.select(task, units, judgements)
        keep = [
            np.ones(len(judgement.units), bool) if broken[at] else self._at_least(judgement.units, its_keep)
            for at, judgement, its_keep in zip(order, judgements, chosen, strict=True)
        ]
        adjusted = self.adjust(task, units, judgements, keep)
        parts = zip(task.documents, units, judgements, adjusted, strict=True)
        shortened = [its_parts for its_parts in parts if its_parts[-1].any() or not self.drop_empty]
        documents = [self._document(*its_parts, rank) for rank, its_parts in enumerate(shortened, 1)]
        return Outcome(documents, {"failures": sum(broken)} if any(broken) else {})

    def _at_least(self, scores: Scores, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        best = np.argsort(-scores, kind="stable")[: self.min_sentences]
        keep = keep.copy()
        keep[best] = True
        return keep

    def _document(
        self, document: Document, units: Sequence[Unit], judgement: Judgement, keep: NDArray[np.bool_], rank: int
    ) -> Document:
        record, text, language = provenance(document), passage_text(document), iso_code(self.language)
        everything = units_of(document, language)
        known = dict(zip(units, map(float, judgement.units), strict=True))
        spans = kept_spans(document, units, keep, language)
        pruned = Document(id=document.id, page_content=join_spans(text, spans), metadata=document.metadata)
        scores = tuple(known.get(unit, 0.0) for unit in everything)
        shown = with_provenance(pruned, record, passage=text, spans=spans, units=everything, unit_scores=scores)
        return with_stages(shown, StageResult(self.stage, judgement.passage, rank))


def kept_spans(document: Document, units: Sequence[Unit], keep: NDArray[np.bool_], language: str) -> tuple[Span, ...]:
    """The slices of the passage that the kept ones of `units` make."""
    kept = {unit for unit, its_keep in zip(units, keep, strict=True) if its_keep}
    # of all units: what an earlier pruner dropped parts the neighbours it lay between
    everything = units_of(document, language)
    return merge_units(everything, [unit in kept for unit in everything])


def _finite(judgement: Judgement) -> bool:
    return bool(np.isfinite(judgement.units).all()) and (judgement.passage is None or math.isfinite(judgement.passage))


def _remaining_units(document: Document, language: str) -> list[Unit]:
    spans = provenance(document).spans
    units = units_of(document, language)
    return list(units) if spans is None else [unit for unit in units if inside(unit, spans)]
