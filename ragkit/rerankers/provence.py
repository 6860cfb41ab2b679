"""Reranking with a Provence model, whose pass over question and passage also serves a pruner behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragkit.compressor import Task
from ragkit.indexes.base import Scores
from ragkit.provence.stage import ProvenceStage
from ragkit.rerankers.base import Reranker


class ProvenceReranker(ProvenceStage, Reranker):
    """Orders documents by the passage score of a Provence model.

    A passage longer than the model's window has the score of its best part; its title, `metadata["title"]` or its headings, is
    read before it. Followed by a `ProvencePruner` of the same model, the two of them cost one forward pass.
    """

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        return [np.array([judged.score for judged in its_judged]) for its_judged in self.judged(tasks)]
