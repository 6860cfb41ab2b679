"""What tuning reads of a split: every ranking, reranker's score and pruner's score is made once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial

import numpy as np
from langchain_core.documents import Document

from ragkit.compressor import CompressorInput
from ragkit.documents.provenance import provenance, score_of
from ragkit.errors import InputError
from ragkit.evaluation.collection import Collection
from ragkit.evaluation.tuning import Floats, Ints, Marked
from ragkit.indexes.base import Positions, Ranking
from ragkit.pruners.base import Pruner
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.blend import blend
from ragkit.retrievers.fusion import convex_combination, reciprocal_rank_fusion
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.retrievers.weights import Fuse, Labelled, fit_weights, ndcg
from ragkit.store.store import Store

WAYS = ("bm25", "dense", "hybrid", "rrf", "fitted", "multi-hop")
"""Ways to rank: each half alone, the default fusion, reciprocal rank fusion, the default with fitted weights, and in two hops."""

_DEPTH = 100
_STEPS = 10  # a weight is a multiple of a tenth: few questions do not tell more apart
_CHUNK = 16  # questions at a time: bounds memory


class Workbench:
    """The questions of a split that have a relevant document, and what every part of a pipeline makes of them.

    A reranker is asked for what a pipeline would hand it, all at once: what it says of a passage may depend on those beside it.
    """

    def __init__(
        self,
        store: Store,
        collection: Collection,
        *,
        rerankers: Mapping[str, Reranker],
        pruner: Pruner | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """`rerankers` go by a name; `pruner` gives units scores. `progress` is told of passages judged, of those now asked for.

        Raises `InputError` if fewer than three questions have a relevant document: weights are fitted on two at least.
        """
        self.ids = [id_ for id_ in collection.queries if any(gain > 0 for gain in collection.qrels[id_].values())]
        if len(self.ids) < 3:
            raise InputError(f"questions: tuning needs three with a relevant document, {collection.name} has {len(self.ids)}")
        self._texts = [collection.queries[id_] for id_ in self.ids]
        self._collection, self._rerankers, self._progress = collection, rerankers, progress
        self._snapshot = store.snapshot
        self._pruner = None if pruner is None else pruner.model_copy(update={"drop_empty": False})
        hybrid = HybridRetriever(store=store, depth=_DEPTH)
        self._hops = MultiHopRetriever(retriever=hybrid, store=store)
        found = hybrid.rank(self._snapshot, self._texts, _DEPTH, None)
        self._default = [ranked.ranking for ranked in found]
        halves = [[ranked.sources[retriever.stage] for retriever in hybrid.retrievers] for ranked in found]
        floors = [retriever.score_floor for retriever in hybrid.retrievers]
        self._convex: Fuse = partial(convex_combination, normaliser="theoretical-min-max", floors=floors, depth=_DEPTH)
        positions = sorted({int(position) for its in halves for ranking in its for position in ranking.positions})
        names = {str(document.id): p for p, document in zip(positions, self._snapshot.documents(positions), strict=True)}
        self._labelled = [Labelled(its, self._gains(id_, names)) for id_, its in zip(self.ids, halves, strict=True)]
        self._scores: dict[int, list[dict[frozenset[int], dict[int, float]]]] = {
            id(reranker): [{} for _ in self.ids] for reranker in rerankers.values()
        }
        self._marked: list[dict[int, Marked]] = [{} for _ in self.ids]

    def weights(self, train: Ints) -> tuple[float, ...]:
        """Weights of BM25 and dense retrieval, fitted on these questions."""
        return fit_weights([self._labelled[i] for i in train], self._convex, steps=_STEPS).weights

    def rankings(self, way: str, train: Ints) -> list[Ranking]:
        """Rankings of all questions by one of `WAYS`; `train` are the questions that weights may be fitted on."""
        halves = [question.rankings for question in self._labelled]
        if way == "hybrid":
            return self._default
        if way == "rrf":
            return [reciprocal_rank_fusion(its, [1.0, 1.0], _DEPTH) for its in halves]
        if way == "fitted":
            return self.convex(self.weights(train))
        if way == "multi-hop":
            return self._in_two_hops
        return [its[WAYS.index(way)] for its in halves]

    @cached_property
    def _in_two_hops(self) -> list[Ranking]:
        return [ranked.ranking for ranked in self._hops.rank(self._snapshot, self._texts, _DEPTH, None)]

    def convex(self, weights: Sequence[float]) -> list[Ranking]:
        """Rankings of all questions by the default fusion with these weights of BM25 and dense retrieval."""
        return [self._convex(question.rankings, weights, _DEPTH) for question in self._labelled]

    def orders(self, rankings: Sequence[Ranking], reranker: str | None, depth: int, weight: float = 0.0) -> list[Positions]:
        """The first `depth` of each ranking [up to depth], reordered by a reranker's scores, if one is named.

        The ranking's own scores have this `weight` in the order; see `ragkit.rerankers.blend`.
        """
        cut = [ranking.positions[:depth] for ranking in rankings]
        if reranker is None:
            return cut
        orders = []
        for ranking, positions, known in zip(rankings, cut, self._rerank(self._rerankers[reranker], cut), strict=True):
            scores = np.array([known[int(position)] for position in positions])
            order = np.argsort(-scores, kind="stable")
            if weight:
                # the blend is a stage behind the reranker, so the reranker's order settles ties
                order = order[np.argsort(-blend(ranking.scores[:depth], scores, weight)[order], kind="stable")]
            orders.append(positions[order])
        return orders

    def values(self, orders: Sequence[Positions]) -> Floats:
        """nDCG@10 of each question [questions]."""
        return np.array([ndcg(order, question.gains) for order, question in zip(orders, self._labelled, strict=True)])

    def marked(self, orders: Sequence[Positions], k: int) -> list[list[Marked]]:
        """The first `k` passages of each question with their evidence and the scores of their units; none without a pruner.

        Of questions without known evidence, nothing.
        """
        if self._pruner is None:
            return [[] for _ in self.ids]
        wanted = [order[:k] if id_ in self._collection.gold else order[:0] for id_, order in zip(self.ids, orders, strict=True)]
        pruner = self._pruner
        missing = [[int(p) for p in positions if int(p) not in its] for positions, its in zip(wanted, self._marked, strict=True)]
        for at, documents in self._asked(missing, pruner):
            for position, document in documents.items():
                record = provenance(document)
                units = [(unit.start, unit.end) for unit in record.units or ()]
                gold = [
                    sentence.span
                    for sentence in self._collection.gold[self.ids[at]]
                    if sentence.document == document.id and sentence.span is not None
                ]
                self._marked[at][position] = Marked(gold, units, np.array(record.unit_scores or [], np.float64))
        return [[its[int(position)] for position in positions] for positions, its in zip(wanted, self._marked, strict=True)]

    def _rerank(self, reranker: Reranker, cut: Sequence[Positions]) -> list[dict[int, float]]:
        """Of each question the scores by position."""
        known, groups = self._scores[id(reranker)], [frozenset(positions.tolist()) for positions in cut]
        new = [group not in its for group, its in zip(groups, known, strict=True)]
        missing = [positions.tolist() if its_new else [] for positions, its_new in zip(cut, new, strict=True)]
        for at, documents in self._asked(missing, reranker):
            scores = {position: score_of(document) for position, document in documents.items()}
            known[at][groups[at]] = {position: -np.inf if score is None else score for position, score in scores.items()}
        return [its.get(group, {}) for group, its in zip(groups, known, strict=True)]

    def _asked(self, missing: Sequence[Sequence[int]], stage: Reranker | Pruner) -> Iterator[tuple[int, dict[int, Document]]]:
        """Number of a question, and what a stage makes of its passages at these positions."""
        busy = [at for at, positions in enumerate(missing) if positions]
        total, done = sum(map(len, missing)), 0
        for start in range(0, len(busy), _CHUNK):
            some = busy[start : start + _CHUNK]
            given = {at: self._snapshot.documents(missing[at]) for at in some}
            asked = [CompressorInput(query=self._texts[at], documents=given[at]) for at in some]
            for at, documents in zip(some, stage.batch(asked), strict=True):
                places = {document.id: position for position, document in zip(missing[at], given[at], strict=True)}
                yield at, {places[document.id]: document for document in documents}
                done += len(documents)
            if self._progress is not None:
                self._progress(done, total)

    def _gains(self, id_: str, names: Mapping[str, int]) -> dict[int, float]:
        """Gains by position; what nothing found has a negative one."""
        qrels = self._collection.qrels[id_].items()
        return {names.get(document, -1 - n): float(gain) for n, (document, gain) in enumerate(qrels)}
