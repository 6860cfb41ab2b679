"""How good a model is on what was held out, and the threshold to give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ragkit.encoders.batches import equal_batches
from ragkit.evaluation.pruning import Scored, ScoredPassage, gold_first, measure, ranking, threshold_for
from ragkit.provence.marked import MarkedBert, unit_means
from ragkit.provence.own import collate
from ragkit.training.rows import Labelled


def score(model: MarkedBert, windows: Sequence[Labelled], batch_tokens: int = 8192) -> list[tuple[str, ScoredPassage]]:
    """What the model makes of each window whose gold is known, taken as a passage of its own, after the window's source.

    Windows without a unit, as of a title that fills the first, are left out.
    """
    judged = [window for window in windows if window.gold is not None and (window.row.owners >= 0).any()]
    found: dict[int, ScoredPassage] = {}
    questions = {group: at for at, group in enumerate(dict.fromkeys(window.group for window in judged))}
    device = model.pruning.weight.device
    model.eval()
    for lot in equal_batches([len(window.row.ids) for window in judged], batch_tokens):
        batch = collate([judged[at].row for at in lot], device)
        with torch.inference_mode():
            output = model(batch)
            means, present = unit_means(torch.sigmoid(output.tokens), batch)
        for at, scores, shown, rank in zip(lot, means.cpu().numpy(), present.cpu().numpy(), output.rank.tolist(), strict=True):
            window = judged[at]
            gold = np.asarray(window.gold) > 0
            there = shown[: len(gold)]
            lengths = np.bincount(window.row.owners[window.row.owners >= 0], minlength=len(gold))
            found[at] = ScoredPassage(
                questions[window.group],
                scores[: len(gold)][there].astype(np.float64),
                lengths[there],
                gold[there],
                np.ones(there.sum(), bool),
                rank,
            )
    model.train()
    return [(window.source, found[at]) for at, window in enumerate(judged)]


def metrics(passages: Sequence[ScoredPassage], keep_gold: float) -> dict[str, Any]:
    """Figures at the threshold that keeps this share of the gold sentences; text is counted in tokens."""
    scored = Scored.of(passages)
    threshold = threshold_for(scored, keep_gold)
    point, ranked = measure(scored, scored.scores >= threshold), ranking(scored)
    return {
        "gold_first": gold_first(scored),
        "threshold": threshold,
        "removed_relevant": point.removed_relevant,
        "removed_irrelevant": point.removed_irrelevant,
        "mrr": ranked.mrr,
    }


def figure_of_merit(metrics: dict[str, Any]) -> float:
    """What is maximised: gold sentences ranked first, text removed, and passages ranked, in equal parts."""
    parts = [metrics["gold_first"], metrics["removed_relevant"], metrics["removed_irrelevant"], metrics["mrr"]]
    return float(np.nanmean(parts))
