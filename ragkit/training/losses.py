"""The losses of a Provence model, as sums over windows. Pure functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from ragkit.provence.marked import Batch, Output, unit_means


class Targets(NamedTuple):
    """What is known of n windows of at most u units."""

    gold: torch.Tensor
    """[n, u], 1 for gold units."""
    known: torch.Tensor
    """[n], whether gold is known."""


class PruningLosses(NamedTuple):
    """Sums over the windows whose gold is known; of each window the mean over its units or tokens."""

    sentences: torch.Tensor
    tokens: torch.Tensor
    listwise: torch.Tensor


def pruning_losses(output: Output, batch: Batch, targets: Targets, smoothing: float, gold_weight: float) -> PruningLosses:
    """Three views of which sentences to keep.

    `sentences`: cross-entropy of each unit's mean keep probability, which is what is thresholded in use, gold units weighing
    `gold_weight`. `tokens`: cross-entropy of each token with its unit's label (Provence). `listwise`: cross-entropy of a
    softmax over the units' mean logits, which ranks a passage's sentences (ListNet, top one).
    """
    probabilities, present = unit_means(torch.sigmoid(output.tokens), batch)
    logits, _ = unit_means(output.tokens, batch)
    present = present & targets.known[:, None]
    soft = targets.gold * (1 - 2 * smoothing) + smoothing
    weights = present * (1 + (gold_weight - 1) * targets.gold)
    by_unit = functional.binary_cross_entropy(probabilities.clamp(1e-5, 1 - 1e-5), soft, weights, reduction="none")
    sentences = (by_unit.sum(1) / present.sum(1).clamp(min=1)).sum()
    read = (batch.owners >= 0) & targets.known[:, None]
    by_token = functional.binary_cross_entropy_with_logits(
        output.tokens, soft.gather(1, batch.owners.clamp(min=0)), reduction="none"
    )
    tokens = ((by_token * read).sum(1) / read.sum(1).clamp(min=1)).sum()
    gold = targets.gold * present
    chances = torch.log_softmax(logits.masked_fill(~present, -1e4), 1)
    listwise = -((gold * chances).sum(1) / gold.sum(1).clamp(min=1)).sum()
    return PruningLosses(sentences, tokens, listwise)


def ranking_loss(
    rank: torch.Tensor, relevant: torch.Tensor, teacher: torch.Tensor, groups: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """How far passage scores are from relevance, and how far each question's ranking is. All arguments are [n].

    Per window the squared distance from its teacher's score, or where that is NaN the cross-entropy with `relevant`, which is
    0 or 1. Per question the cross-entropy of a softmax over its windows, half a window's worth for each; questions whose
    windows are all alike add nothing. `groups` numbers the questions.
    """
    soft = relevant * (1 - 2 * smoothing) + smoothing
    taught = ~teacher.isnan()
    distances = (rank - teacher.nan_to_num()) ** 2
    pointwise = torch.where(taught, distances, functional.binary_cross_entropy_with_logits(rank, soft, reduction="none"))
    own = groups[None, :] == torch.arange(int(groups.max()) + 1, device=groups.device)[:, None]
    positive = own & (relevant[None, :] > 0.5)
    mixed = positive.any(1) & (own & ~positive).any(1)
    own, positive = own[mixed], positive[mixed]
    chances = torch.log_softmax(rank.masked_fill(~own, -1e4), 1)
    listwise = -(positive * chances).sum(1) / positive.sum(1).clamp(min=1)
    total: torch.Tensor = pointwise.sum() + 0.5 * (listwise * own.sum(1)).sum()
    return total
