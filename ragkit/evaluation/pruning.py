"""How much gold evidence a pruner keeps for how much text it removes, and how it ranks: pure functions on arrays.

Conventions. A unit (sentence) is kept at threshold t if its score is at least t. Shares of sentences are over all sentences of
all passages, also of those without evidence. Text is counted in characters of units, without the white space between them; the
share removed is taken per passage and averaged over passages. Ties are broken by position, the earlier first. A passage is
relevant if it has a gold unit. What has nothing to be a share of is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from math import ceil, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ScoredPassage(NamedTuple):
    """What a pruner made of one passage of n units."""

    question: int
    """Number of the question it belongs to."""
    scores: Floats
    """A score per unit, [n]."""
    lengths: Ints
    """Characters of each unit, [n]."""
    gold: Mask
    """Which units hold evidence, [n]."""
    kept: Mask
    """Which units the pruner itself kept, as it was configured, [n]."""
    relevance: float | None = None
    """Its score of the whole passage, if it gives one."""


@dataclass(frozen=True)
class Scored:
    """What a pruner made of p passages with u units in all, as flat arrays. Build it with `Scored.of`."""

    scores: Floats  # [u]
    lengths: Ints  # [u]
    gold: Mask  # [u]
    kept: Mask  # [u]
    passage: Ints  # [u], the passage of each unit, ascending
    question: Ints  # [p], the question of each passage
    relevance: Floats  # [p], NaN where the pruner gave none

    @classmethod
    def of(cls, passages: Sequence[ScoredPassage]) -> Scored:
        """Raises `InputError` if there is no gold unit, if a passage is without text, or if a score is not finite."""
        if not any(passage.gold.any() for passage in passages):
            raise InputError("passages: none has a gold sentence, so there is nothing to measure")
        if not all(passage.lengths.sum() > 0 for passage in passages):
            raise InputError("passages: each needs a sentence with text")
        scored = cls(
            scores=np.concatenate([passage.scores for passage in passages]).astype(np.float64),
            lengths=np.concatenate([passage.lengths for passage in passages]),
            gold=np.concatenate([passage.gold for passage in passages]),
            kept=np.concatenate([passage.kept for passage in passages]),
            passage=np.repeat(np.arange(len(passages)), [len(passage.scores) for passage in passages]),
            question=np.array([passage.question for passage in passages], dtype=np.int64),
            relevance=np.array([nan if passage.relevance is None else passage.relevance for passage in passages]),
        )
        if not np.isfinite(scored.scores).all():
            raise InputError("scores: must be finite numbers")
        return scored

    @cached_property
    def relevant(self) -> Mask:
        """Which passages have a gold unit, [p]."""
        found: Mask = np.zeros(len(self.question), dtype=np.bool_)
        found[self.passage[self.gold]] = True
        return found

    @cached_property
    def shares(self) -> Floats:
        """Each unit's share of its passage's characters, [u]."""
        totals = np.bincount(self.passage, weights=self.lengths, minlength=len(self.question))
        shares: Floats = self.lengths / totals[self.passage]
        return shares

    def of_questions(self, questions: Iterable[int]) -> Scored:
        """Only the passages of these questions."""
        chosen = np.isin(self.question, list(questions))
        units = chosen[self.passage]
        renumbered = np.cumsum(chosen) - 1
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = {name: array[chosen if name in ("question", "relevance") else units] for name, array in parts.items()}
        return Scored(**{**parts, "passage": renumbered[parts["passage"]]})


class Point(NamedTuple):
    """Measures of one decision about all units."""

    precision: float
    """Share of the kept sentences that are gold; 0 if none is kept."""
    recall: float
    """Share of the gold sentences that are kept."""
    f1: float
    f2: float
    """F with recall weighing twice as much as precision."""
    removed: float
    """Share of text removed, over all passages."""
    removed_relevant: float
    removed_irrelevant: float
    whole: float
    """Share of the questions with gold sentences that keep all of them, over all their passages."""


class Curve(NamedTuple):
    """Recall against text removed at every threshold that makes a difference, ascending; the last, infinite, keeps nothing."""

    thresholds: Floats
    removed: Floats
    recall: Floats


class Ranking(NamedTuple):
    """How well passages with evidence are ranked above the question's other candidates."""

    ndcg: float
    """nDCG@10 with binary gains, as ir-measures computes it."""
    mrr: float
    """Mean of 1 / rank of the first relevant passage."""
    questions: int
    """How many questions that is over: those with at least two candidates, at least one of them relevant."""


def measure(scored: Scored, keep: Mask) -> Point:
    """All measures of keeping exactly these units, [u]."""
    hits = int((keep & scored.gold).sum())
    precision, recall = hits / max(int(keep.sum()), 1), hits / int(scored.gold.sum())
    removed = 1 - np.bincount(scored.passage, weights=scored.shares * keep, minlength=len(scored.question))
    lost = scored.question[scored.passage[scored.gold & ~keep]]
    return Point(
        precision,
        recall,
        _f(precision, recall, 1),
        _f(precision, recall, 2),
        _mean(removed),
        _mean(removed[scored.relevant]),
        _mean(removed[~scored.relevant]),
        1 - len(np.unique(lost)) / len(np.unique(scored.question[scored.relevant])),
    )


def sweep(scored: Scored, thresholds: Iterable[float]) -> list[tuple[float, Point]]:
    """The measures at each threshold."""
    return [(float(threshold), measure(scored, scored.scores >= threshold)) for threshold in thresholds]


def quantiles(scored: Scored, count: int = 10) -> Floats:
    """At most `count` thresholds, ascending: scores that cut the sentences into parts of about equal number."""
    found: Floats = np.unique(np.quantile(scored.scores, np.arange(count) / count, method="lower"))
    return found


def threshold_for(scored: Scored, share: float = 0.95) -> float:
    """The largest threshold that keeps at least this share of all gold sentences: the score of one of them, exactly.

    Sentences with equal scores are kept or dropped together, so the share kept may be larger than the one asked for.
    """
    if not 0 < share <= 1:
        raise InputError(f"share: must be above 0 and at most 1, not {share}")
    best_first = -np.sort(-scored.scores[scored.gold])
    # 0.95 times 60 must ask for 57 sentences, whatever floating point makes of it
    return float(best_first[ceil(share * len(best_first) - 1e-9) - 1])


def curve(scored: Scored) -> Curve:
    """Recall and text removed, exactly, at all distinct scores."""
    order = np.argsort(scored.scores, kind="stable")
    values = scored.scores[order]
    last = np.append(values[1:] != values[:-1], True)
    dropped = np.cumsum(scored.shares[order])[last] / len(scored.question)
    lost = np.cumsum(scored.gold[order])[last] / scored.gold.sum()
    # at the smallest score everything is kept; above a score everything up to it is dropped
    return Curve(
        np.append(values[last], np.inf),
        np.clip(np.concatenate([[0.0], dropped]), 0.0, 1.0),
        1 - np.concatenate([[0.0], lost]),
    )


def recall_at(curve: Curve, removed: float) -> float:
    """Share of gold sentences kept when this share of text is removed, so that pruners can be compared at equal compression.

    Between two thresholds it is interpolated linearly, which is what dropping at random among equal scores would give. NaN for
    a pruner whose scores are all equal: it cannot remove a part.
    """
    return float(np.interp(removed, curve.removed, curve.recall)) if len(curve.thresholds) > 2 else nan


def gold_first(scored: Scored) -> float:
    """Share of the passages with gold sentences in which a gold sentence has the best score."""
    order = np.lexsort((-scored.scores, scored.passage))
    starts = np.searchsorted(scored.passage, np.arange(len(scored.question)))
    return _mean(scored.gold[order[starts]][scored.relevant])


def ranking(scored: Scored) -> Ranking:
    """nDCG@10 and MRR of each question's own candidates, by the pruner's passage score, or by the best unit where it gives none.

    Jarvelin and Kekalainen 2002: the gain at rank r is divided by log2(r + 1), and the sum by that of the ideal ranking. NaN if
    no question counts.
    """
    starts = np.searchsorted(scored.passage, np.arange(len(scored.question)))
    best_unit = np.maximum.reduceat(scored.scores, starts)
    discounts = 1 / np.log2(np.arange(2, 12))
    ndcg, mrr = [], []
    for question in np.unique(scored.question[scored.relevant]):
        passages = np.flatnonzero(scored.question == question)
        if len(passages) < 2:
            continue
        given = scored.relevance[passages]
        values = best_unit[passages] if np.isnan(given).any() else given
        found = scored.relevant[passages][np.argsort(-values, kind="stable")]
        ideal = discounts[: found.sum()].sum()
        ndcg.append((discounts[: len(found)] * found[:10]).sum() / ideal)
        mrr.append(1 / (1 + int(np.argmax(found))))
    return Ranking(_mean(ndcg), _mean(mrr), len(ndcg))


def _f(precision: float, recall: float, beta: float) -> float:
    """F-measure of van Rijsbergen; 0 if precision and recall are."""
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def _mean(values: Sequence[float] | NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else nan
