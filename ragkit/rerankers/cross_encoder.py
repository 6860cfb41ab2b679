"""Reranking with a cross-encoder: question and passage read together by one transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from ragkit.compressor import Task
from ragkit.documents.provenance import passage_text
from ragkit.encoders.folder import locate
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker

if TYPE_CHECKING:
    from ragkit.rerankers.pair_model import PairModel

_CHUNK = 1024  # pairs tokenized at a time: bounds memory, and still finds neighbours of equal length


class CrossEncoderReranker(Reranker):
    """Any sequence-classification checkpoint with one output, or with two (the score is then the log-odds of the second).

    A passage longer than the model's window is read in overlapping windows and gets the score of the best one; nothing is cut
    off. A question that would leave the passage less than half of the window is cut to half of it, with a warning.
    """

    model: str | Path
    """A folder or a hub name; the weights must be in safetensors format."""
    activation: Literal["sigmoid", "raw"] = "sigmoid"
    """Scores between 0 and 1, or the model's logits."""
    max_length: int | None = Field(default=None, ge=16)
    """Tokens of question, passage and special tokens together; None is as many as the model takes, at most 512."""
    batch_tokens: int = Field(default=8192, gt=0)
    """Tokens, padding included, that go through the model at once."""
    device: str | None = None
    """None is a GPU where there is one."""

    # shared by copies, such as those that a cascade makes for each call
    _loaded: dict[Any, Any] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=Lock)

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        model = self._model()
        pairs = [(task.query, passage_text(document)) for task in tasks for document in task.documents]
        best = np.full(len(pairs), -np.inf)
        for start in range(0, len(pairs), _CHUNK):
            windows, owners = model.windows(pairs[start : start + _CHUNK])
            for batch, logits in model.batches(windows, self.batch_tokens):
                # not fmax: a NaN must be seen, not skipped
                np.maximum.at(best, [start + owners[i] for i in batch], logits)
        if self.activation == "sigmoid":
            best = np.exp(-np.logaddexp(0, -best))
        return np.split(best, np.cumsum([len(task.documents) for task in tasks])[:-1])

    def _model(self) -> PairModel:
        from ragkit.rerankers.pair_model import PairModel

        wanted = (self.model, self.max_length, self.device)
        with self._lock:
            if wanted not in self._loaded:
                self._loaded[wanted] = PairModel(locate(self.model), self.max_length, self.device)
            loaded: PairModel = self._loaded[wanted]
            return loaded
