"""Signs of how well a question went: what a decision to answer or to abstain can be based on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from typing import Any

from ragkit.chains.context import Candidate, GroundedContext, StageTrace
from ragkit.documents.provenance import StageResult
from ragkit.encoders.lexical import Analyzer
from ragkit.retrievers.prediction import coverage, gap, nqc, overlap, rank_biased_overlap, smv, wig

Weigh = Callable[[str], Mapping[str, float]]
"""The terms of a text, each with its weight: `Rarity(snapshot).of_text` gives inverse document frequencies."""

_DEPTH = 10


@dataclass(frozen=True)
class Signals:
    """What is known of one question after the pipeline has run; None for what its stages do not say.

    Scores mean what their stage means by them, so they tell easy questions from hard ones of one pipeline only. The formulas, and
    where they are from, are in `ragkit.retrievers.prediction`.
    """

    results: int
    """Passages that retrieval found."""
    top: float | None
    """The best score of retrieval."""
    gap: float | None
    """By how much it lies above the second."""
    nqc: float | None
    """The spread of retrieval's scores."""
    smv: float | None
    """Their magnitude and spread together."""
    wig: float | None
    """The mean of the best five above the last, by the length of the question."""
    agreement: float | None
    """The share of documents that the retrievers' first ten have in common, averaged over pairs of them."""
    rbo: float | None
    """The same with the first ranks counting most."""
    tops: Mapping[str, float]
    """The best score that each of the fused retrievers gave, by its name: on its own scale, which fusion has levelled."""
    spreads: Mapping[str, float]
    """The spread (NQC) of each retriever's scores."""
    stability: float | None
    """How alike the first ten are before and after reranking (RBO)."""
    reranked: float | None
    """The best score after reranking."""
    sentence: float | None
    """The best score of a kept sentence."""
    coverage: float
    """The share of the question's terms, by weight, that stand in the kept sentences."""
    kept: float
    """The share of the retrieved passages' tokens that was kept."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON-serialisable dict."""
        return asdict(self)


def signals(context: GroundedContext, *, weigh: Weigh | None = None) -> Signals:
    """The signals of a grounded context, from its trace, its candidates and its kept sentences; costs about a millisecond.

    `weigh` makes terms of a text; by default these are English stems, all of weight 1.
    """
    weigh = weigh or _unweighted
    asked = weigh(context.question)
    shown = [term for citation in context.citations for term in weigh(citation.text)]
    first = context.trace[0] if context.trace else None
    last = context.trace[-1] if len(context.trace) > 1 else None
    scores = _scores(first)
    sources = source_results(context.candidates, first.stage) if first else {}
    pairs = list(combinations([{id_: r.rank for id_, r in results.items()} for results in sources.values()], 2))
    found = {name: _finite(r.score for r in results.values()) for name, results in sources.items()}
    sentences = _finite(s.score for passage in context.passages for s in passage.sentences)
    return Signals(
        results=first.left if first else len(context.passages),
        top=scores[0] if scores else None,
        gap=gap(scores) if scores else None,
        nqc=nqc(scores) if scores else None,
        smv=smv(scores) if scores else None,
        wig=wig(scores, len(asked), scores[-1]) if scores else None,
        agreement=_mean([overlap(*pair, _DEPTH) for pair in pairs]),
        rbo=_mean([rank_biased_overlap(*pair, _DEPTH) for pair in pairs]),
        tops={name: max(its_scores) for name, its_scores in found.items() if its_scores},
        spreads={name: nqc(its_scores) for name, its_scores in found.items() if its_scores},
        stability=rank_biased_overlap(_ranks(first), _ranks(last), _DEPTH) if first and last else None,
        reranked=max(_scores(last), default=None),
        sentence=max(sentences, default=None),
        coverage=coverage(asked, shown),
        kept=context.tokens_kept / context.tokens_retrieved if context.tokens_retrieved else 0.0,
    )


def source_results(candidates: Iterable[Candidate], fused: str) -> dict[str, dict[str, StageResult]]:
    """What each retriever said of these passages, by its name and their ids, best first; `fused` is who fused the retrievers.

    A candidate's stages name the retrievers before the one that fused them, and rerankers after it. Empty for what a single
    retriever found.
    """
    said: dict[str, dict[str, StageResult]] = {}
    for candidate in candidates:
        for result in candidate.stages:
            if result.stage == fused:
                break
            said.setdefault(result.stage, {})[candidate.id] = result
    return {name: dict(sorted(results.items(), key=lambda item: item[1].rank)) for name, results in said.items()}


def _unweighted(text: str) -> dict[str, float]:
    return dict.fromkeys(Analyzer()(text), 1.0)


def _scores(stage: StageTrace | None) -> list[float]:
    """Those of a stage, best first."""
    return sorted(_finite(r.score for r in stage.results), reverse=True) if stage else []


def _finite(scores: Iterable[float | None]) -> list[float]:
    """Without what no formula can take: a stage of somebody else may give NaN."""
    return [score for score in scores if score is not None and isfinite(score)]


def _ranks(stage: StageTrace) -> dict[str, int]:
    return {result.id: rank for rank, result in enumerate(stage.results, 1)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
