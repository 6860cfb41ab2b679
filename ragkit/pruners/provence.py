"""Pruning with a Provence model: each token is labelled with whether it helps to answer, and sentences follow their tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ragkit.compressor import Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import passage_text
from ragkit.documents.spans import join_spans
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.encoders.languages import iso_code
from ragkit.provence.family import Rounding
from ragkit.provence.rounding import above, unit_scores
from ragkit.provence.stage import ProvenceStage
from ragkit.provence.titles import above_kept, title_units
from ragkit.pruners.base import Judgement, Pruner, kept_spans
from ragkit.pruners.budget import spend

_log = logging.getLogger(__name__)


class ProvencePruner(ProvenceStage, Pruner):
    """Keeps the sentences that a Provence model (https://arxiv.org/abs/2501.16214) finds useful for the question.

    The model reads question and whole passage together, so a sentence is judged in its context; the same pass scores the passage,
    which becomes its `relevance_score`. What the fields leave open is as the model was trained. A passage longer than the model's
    window is read in overlapping windows.
    """

    threshold: float | None = Field(default=None, ge=0, le=1)
    """What a sentence, or under "vote" a token, must exceed to be kept; higher keeps less. None is the model's own."""
    rounding: Rounding | None = None
    """How tokens decide on a sentence, see `ragkit.provence.rounding`; None is the model's own."""
    top_k: int | None = Field(default=None, gt=0)
    """Keep only the documents with the best passage scores, this many; None keeps all."""
    reorder: bool = False
    """Whether the documents come back best passage first; otherwise they keep their order."""
    keep_title: bool | None = None
    """Whether headings, and a first sentence that is the title, stay if something below them does; None is the model's own."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Budget for the kept text of one question, in tokens of `RegexTokenizer`: the best sentences of all documents, in their
    original order. Titles are paid from what is left. Stronger than `min_sentences`.
    """

    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Judgement]]:
        """See `Pruner.judge`."""
        rounding, threshold = self._rule()
        return [
            [
                Judgement(unit_scores(judged, its_units, rounding, threshold), judged.score)
                for judged, its_units in zip(its_judged, task_units, strict=True)
            ]
            for its_judged, task_units in zip(self.judged(tasks), units, strict=True)
        ]

    def arrange(self, judgements: Sequence[Judgement]) -> Sequence[int]:
        """See `Pruner.arrange`. If a passage score is not finite, the documents are taken in their order."""
        order = np.arange(len(judgements))
        scores = [judgement.passage for judgement in judgements if judgement.passage is not None]
        if len(scores) == len(judgements):
            order = np.argsort(-np.array(scores), kind="stable")
        best: list[int] = order[: self.top_k].tolist()
        return best if self.reorder else sorted(best)

    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """See `Pruner.select`."""
        rounding, threshold = self._rule()
        return [above(judgement.units, rounding, threshold) for judgement in judgements]

    def adjust(
        self,
        task: Task,
        units: Sequence[Sequence[Unit]],
        judgements: Sequence[Judgement],
        keep: Sequence[NDArray[np.bool_]],
    ) -> list[NDArray[np.bool_]]:
        """See `Pruner.adjust`: the budget, and titles."""
        if self.max_tokens is None:
            return [its_keep | heads for its_keep, heads in zip(keep, self._heads(task, units, keep), strict=True)]
        ends = np.cumsum([len(its_units) for its_units in units])[:-1]
        costs = count_tokens(RegexTokenizer(), _texts(task, units))
        scores = np.concatenate([judgement.units for judgement in judgements])
        wanted = np.flatnonzero(np.concatenate(keep))
        taken = spend(costs, wanted[np.argsort(-scores[wanted], kind="stable")].tolist(), self.max_tokens)
        if len(wanted) and not taken:
            _log.warning("max_tokens=%d is too small for any sentence; nothing is kept", self.max_tokens)
        chosen = np.zeros(len(costs), bool)
        chosen[taken] = True
        heads = np.concatenate(self._heads(task, units, np.split(chosen, ends))) & ~chosen
        taken += spend(costs, np.flatnonzero(heads).tolist(), self.max_tokens - sum(costs[at] for at in taken))
        chosen[taken] = True
        # what stands between two neighbours, a byte order mark for example, may count as well
        while taken and self._tokens(task, units, np.split(chosen, ends)) > self.max_tokens:
            chosen[taken.pop()] = False
        return np.split(chosen, ends)

    def _rule(self) -> tuple[Rounding, float]:
        family = self.provence().family
        return self.rounding or family.rounding, family.threshold if self.threshold is None else self.threshold

    def _heads(self, task: Task, units: Sequence[Sequence[Unit]], keep: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
        """The titles that stay for what is kept below them."""
        if not (self.provence().family.keep_title if self.keep_title is None else self.keep_title):
            return [np.zeros(len(its_keep), bool) for its_keep in keep]
        return [
            above_kept(title_units(document, its_units), its_keep)
            for document, its_units, its_keep in zip(task.documents, units, keep, strict=True)
        ]

    def _tokens(self, task: Task, units: Sequence[Sequence[Unit]], keep: Sequence[NDArray[np.bool_]]) -> int:
        """What the kept text costs once it is put together."""
        code = iso_code(self.language)
        texts = [
            join_spans(passage_text(document), kept_spans(document, its_units, its_keep, code))
            for document, its_units, its_keep in zip(task.documents, units, keep, strict=True)
        ]
        return sum(count_tokens(RegexTokenizer(), texts))


def _texts(task: Task, units: Sequence[Sequence[Unit]]) -> list[str]:
    return [
        passage_text(document)[unit.start : unit.end]
        for document, its_units in zip(task.documents, units, strict=True)
        for unit in its_units
    ]
