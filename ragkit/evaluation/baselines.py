"""Pruners that know nothing of the question: what a pruner must beat. Only for comparison."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray
from pydantic import Field

from ragkit.compressor import Task
from ragkit.documents.model import Unit
from ragkit.documents.provenance import content_id
from ragkit.indexes.base import Scores
from ragkit.pruners.base import Judgement, Pruner


class Baseline(Pruner):
    """Scores the units of each document by itself and keeps those that reach `threshold`."""

    threshold: float = 0.0
    """The score that a unit must reach."""

    @abstractmethod
    def score(self, document: Document, count: int) -> Scores:
        """Scores of the `count` units of one document, [count]."""

    def judge(self, tasks: Sequence[Task], units: Sequence[Sequence[Sequence[Unit]]]) -> list[list[Judgement]]:
        """See `Pruner.judge`."""
        return [
            [
                Judgement(self.score(document, len(its_units)))
                for document, its_units in zip(task.documents, task_units, strict=True)
            ]
            for task, task_units in zip(tasks, units, strict=True)
        ]

    def select(self, task: Task, units: Sequence[Sequence[Unit]], judgements: Sequence[Judgement]) -> list[NDArray[np.bool_]]:
        """See `Pruner.select`."""
        return [judgement.units >= self.threshold for judgement in judgements]


class KeepAll(Baseline):
    """Keeps everything: all units score 1."""

    def score(self, document: Document, count: int) -> Scores:
        """See `Baseline.score`."""
        return np.ones(count)


class Lead(Baseline):
    """Keeps the first sentences. Unit n, from 1, scores 1/n, so a threshold of 1/3 keeps three; the default keeps one."""

    threshold: float = Field(default=1.0, gt=0, le=1)
    """One divided by the number of sentences to keep."""

    def score(self, document: Document, count: int) -> Scores:
        """See `Baseline.score`."""
        return 1 / np.arange(1.0, count + 1)


class Random(Baseline):
    """Keeps units at random. Scores lie between 0 and 1 and follow from the document's id and `seed`, whatever else is asked."""

    threshold: float = Field(default=0.5, ge=0, le=1)
    """The score that a unit must reach: the share of units to drop."""
    seed: int = 0

    def score(self, document: Document, count: int) -> Scores:
        """See `Baseline.score`."""
        return np.random.default_rng(int(content_id(self.seed, document.id), 16)).random(count)
