"""ragkit's own network: a BERT whose tokens are marked with what question and passage share, and two heads. Needs torch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ragkit.provence.inputs import PASSAGE_INPUTS, UNIT_INPUTS

_NOTHING = -30.0  # the best unit's logit where there is no unit


class Batch(NamedTuple):
    """n windows of at most t tokens and u units."""

    ids: torch.Tensor
    """[n, t]"""
    marks: torch.Tensor
    """[n, t], see `inputs.marks_of`."""
    mask: torch.Tensor
    """[n, t], 1 for tokens and 0 for padding."""
    owners: torch.Tensor
    """[n, t], the unit in which a token lies, -1 for tokens of none."""
    units: torch.Tensor
    """[n, u, UNIT_INPUTS]"""
    whole: torch.Tensor
    """[n, PASSAGE_INPUTS]"""


class Output(NamedTuple):
    """Logits of n windows."""

    rank: torch.Tensor
    """[n]"""
    tokens: torch.Tensor
    """[n, t]"""


class MarkedBert(nn.Module):
    """Token logits from the last hidden state, shifted by the evidence of the token's unit and passage; and a passage logit.

    The passage logit is linear in the [CLS] state, the passage's evidence and the best unit's mean token logit: a
    passage is relevant if one of its sentences is. Marks go in where BERT has its segment ids.
    """

    def __init__(self, config: Any) -> None:
        """`config` is a BertConfig whose type_vocab_size is the number of marks."""
        super().__init__()
        from transformers import BertModel

        self.backbone = BertModel(config, add_pooling_layer=False)
        self.pruning = nn.Linear(config.hidden_size, 1)
        self.evidence = nn.Sequential(nn.Linear(UNIT_INPUTS + PASSAGE_INPUTS, 16), nn.GELU(), nn.Linear(16, 1))
        self.ranking = nn.Linear(config.hidden_size + PASSAGE_INPUTS + 1, 1)

    def forward(self, batch: Batch) -> Output:
        """Logits of each window and of each of its tokens."""
        states = self.backbone(input_ids=batch.ids, attention_mask=batch.mask, token_type_ids=batch.marks).last_hidden_state
        whole = batch.whole[:, None].expand(-1, batch.units.shape[1], -1)
        evidence = self.evidence(torch.cat([batch.units, whole], 2)).squeeze(-1)
        owned = batch.owners >= 0
        tokens = self.pruning(states).squeeze(-1) + owned * evidence.gather(1, batch.owners.clamp(min=0))
        means, present = unit_means(tokens, batch)
        best = means.masked_fill(~present, _NOTHING).amax(1, keepdim=True)
        rank = self.ranking(torch.cat([states[:, 0], batch.whole, best], 1)).squeeze(-1)
        return Output(rank, tokens)


def unit_means(values: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of `values` [n, t] over the tokens of each unit, [n, u], and whether the unit has any, [n, u]."""
    owned = (batch.owners >= 0).to(values.dtype)
    owners = batch.owners.clamp(min=0)
    empty = values.new_zeros(batch.units.shape[:2])
    counts = empty.scatter_add(1, owners, owned)
    return empty.scatter_add(1, owners, values * owned) / counts.clamp(min=1), counts > 0
