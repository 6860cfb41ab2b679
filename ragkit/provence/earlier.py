"""Models of ragkit's own format from before passages were looked at in each other's light: the same model with more inputs.

What is new starts without influence, so the model judges as it did; training goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ragkit.provence.inputs import MARKS, PASSAGE_INPUTS, UNIT_INPUTS
from ragkit.provence.matching import PASSAGE_FEATURES, UNIT_FEATURES

_MARKS = "backbone.embeddings.token_type_embeddings.weight"
_EVIDENCE, _RANKING = "evidence.0.weight", "ranking.weight"
_SAME = [*range(16), 10, 10, 11, 11, 16]
"""The earlier mark of each mark: a linked word was one of the passage's, not shared, and of its grade of rarity."""


def widened(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a version 2 model that judges as this version 1 model does. Raises `KeyError` if one is missing."""
    marks, evidence, ranking = tensors[_MARKS], tensors[_EVIDENCE], tensors[_RANKING]
    hidden = marks.shape[1]
    inputs = evidence.new_zeros(len(evidence), UNIT_INPUTS + PASSAGE_INPUTS)
    inputs[:, :UNIT_FEATURES] = evidence
    rank = ranking.new_zeros(1, hidden + PASSAGE_INPUTS + 1)
    rank[:, : hidden + PASSAGE_FEATURES] = ranking[:, :-1]
    rank[:, -1] = ranking[:, -1]
    assert len(_SAME) == MARKS
    return {**tensors, _MARKS: marks[_SAME], _EVIDENCE: inputs, _RANKING: rank}
