"""Fusion that learns from labelled questions which candidates the default fusion puts too low or too high."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from ragkit.corpus.filters import Filter, both
from ragkit.errors import InputError
from ragkit.indexes.base import Positions, top_k
from ragkit.retrievers.base import Ranked, StoreRetriever
from ragkit.retrievers.fusion_features import Evidence, directions, feature_names, features
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.retrievers.lambdamart import Judged, LambdaMART
from ragkit.retrievers.weights import ndcg
from ragkit.store.base import BaseSnapshot
from ragkit.store.text_index import TextIndex

Vectors = NDArray[np.float32]


class LearnedFusionRetriever(StoreRetriever):
    """Reorders what a `HybridRetriever` finds, by LambdaMART over the scores and ranks of its retrievers and stored vectors.

    Needs `pip install 'ragkit[ltr]'`. See `fit_fusion`, which makes one from labelled questions.
    """

    hybrid: HybridRetriever | None = None
    """Where candidates and their rankings come from; None means the default fusion over `store`. Its `depth` is the number of
    candidates that are reordered; its own `k` does not matter here, its filter does."""
    model: str | Path | LambdaMART
    """The fitted trees, or a file of them, for the same retrievers."""
    index_name: str | None = "dense"
    """The index whose vectors tell how similar candidates are to each other and to the question; None does without."""

    @model_validator(mode="before")
    @classmethod
    def _share_store(cls, values: Any) -> Any:
        if isinstance(values, dict):
            store, hybrid = values.get("store"), values.get("hybrid")
            if store is None and isinstance(hybrid, HybridRetriever):
                return {**values, "store": hybrid.store}
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.hybrid is None:
            self.hybrid = HybridRetriever(store=self.store)
        if self.hybrid.store is not self.store:
            raise ValueError("hybrid must be over the same store; build it with store=...")
        if not isinstance(self.model, LambdaMART):
            self.model = LambdaMART.load(self.model)
        if self.model.names != _names(self.hybrid):
            stages = ", ".join(_stages(self.hybrid))
            raise ValueError(f"model was fitted on other retrievers than {stages}; fit one for these with fit_fusion")
        return self

    @property
    def stage(self) -> str:
        """See `StoreRetriever.stage`."""
        return "learned_fusion"

    @classmethod
    def indexes(cls, **options: Any) -> dict[str, TextIndex]:
        """See `StoreRetriever.indexes`."""
        return HybridRetriever.indexes(**options)

    def save(self, path: str | Path) -> None:
        """Write the trees to a file that `model` takes."""
        self._trees.save(path)

    def rank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.rank`."""
        found = self._hybrid.rank(snapshot, queries, *self._wanted(k, filter))
        vectors = _no_vectors(len(queries)) if self.index_name is None else snapshot.encode(self.index_name, queries)
        return self._reorder(snapshot, queries, vectors, found, k)

    async def arank(self, snapshot: BaseSnapshot, queries: Sequence[str], k: int, filter: Filter | None) -> list[Ranked]:
        """See `StoreRetriever.arank`."""
        found, vectors = await asyncio.gather(
            self._hybrid.arank(snapshot, queries, *self._wanted(k, filter)), self._aencode(snapshot, queries)
        )
        return await asyncio.to_thread(self._reorder, snapshot, queries, vectors, found, k)

    async def _aencode(self, snapshot: BaseSnapshot, queries: Sequence[str]) -> Vectors:
        return _no_vectors(len(queries)) if self.index_name is None else await snapshot.aencode(self.index_name, queries)

    def _wanted(self, k: int, filter: Filter | None) -> tuple[int, Filter | None]:
        return max(self._hybrid.depth, k), both(self._hybrid.filter, filter)

    @property
    def _hybrid(self) -> HybridRetriever:
        assert self.hybrid is not None
        return self.hybrid

    @property
    def _trees(self) -> LambdaMART:
        assert isinstance(self.model, LambdaMART)
        return self.model

    def _reorder(
        self, snapshot: BaseSnapshot, queries: Sequence[str], vectors: Vectors, found: Sequence[Ranked], k: int
    ) -> list[Ranked]:
        answers = []
        for query, vector, (fused, sources) in zip(queries, vectors, found, strict=True):
            evidence = _evidence(self._hybrid, self.index_name, snapshot, query, vector, Ranked(fused, sources))
            scores = self._trees.scores(features(evidence), fused.scores)
            answers.append(Ranked(top_k(fused.positions, scores, k), {**sources, self._hybrid.stage: fused}))
        return answers


class FittedFusion(NamedTuple):
    """A retriever, the mean nDCG@10 of questions held out of fitting, and that of the fusion it started from."""

    retriever: LearnedFusionRetriever
    held_out: float
    unlearned: float


def fit_fusion(
    hybrid: HybridRetriever,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    *,
    index_name: str | None = "dense",
    trees: int = 20,
    folds: int = 5,
    seed: int = 0,
) -> FittedFusion:
    """A `LearnedFusionRetriever` over the hybrid's candidates, from questions and judgements by question id and document id.

    Gains are rounded down to whole numbers. Every question is also scored by trees fitted without its fold (question i is in
    fold i modulo `folds`): use what comes back only if `held_out` is above `unlearned`. Raises `InputError` for fewer than
    two questions or folds, or a question without a relevant document, `MissingExtraError` without LightGBM.
    """
    if folds < 2:
        raise InputError(f"folds: must be at least 2, not {folds}")
    if len(queries) < 2:
        raise InputError(f"queries: fitting a fusion needs at least two, not {len(queries)}")
    for id_ in queries:
        if not any(gain >= 1 for gain in qrels.get(id_, {}).values()):
            raise InputError(f"qrels: question {id_!r} has no relevant document; leave it out")
    labelled = hybrid.store.read(lambda snapshot: _labelled(hybrid, index_name, snapshot, queries, qrels))
    judged = [question.judged for question in labelled]
    names, ways = _names(hybrid), directions(len(hybrid.retrievers))
    fold = np.arange(len(judged)) % min(folds, len(judged))
    held_out = []
    for f in np.unique(fold):
        model = LambdaMART.fit([judged[i] for i in np.flatnonzero(fold != f)], names, ways, trees=trees, seed=seed)
        for question in (labelled[i] for i in np.flatnonzero(fold == f)):
            scores = model.scores(question.judged.features, question.judged.given)
            held_out.append(ndcg(top_k(question.positions, scores, 10).positions, question.gains))
    unlearned = [ndcg(question.positions, question.gains) for question in labelled]
    model = LambdaMART.fit(judged, names, ways, trees=trees, seed=seed)
    retriever = LearnedFusionRetriever(hybrid=hybrid, store=hybrid.store, model=model, index_name=index_name)
    return FittedFusion(retriever, float(np.mean(held_out)), float(np.mean(unlearned)))


class _Labelled(NamedTuple):
    """One question's candidates, and the gains of all its relevant documents, negative positions for those not found."""

    judged: Judged
    positions: Positions
    gains: Mapping[int, float]


def _labelled(
    hybrid: HybridRetriever,
    index_name: str | None,
    snapshot: BaseSnapshot,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
) -> list[_Labelled]:
    texts = list(queries.values())
    vectors = _no_vectors(len(texts)) if index_name is None else snapshot.encode(index_name, texts)
    questions = []
    for (id_, text), vector, ranked in zip(
        queries.items(), vectors, hybrid.rank(snapshot, texts, hybrid.depth, hybrid.filter), strict=True
    ):
        positions, given = ranked.ranking
        ids = {str(document.id): int(p) for p, document in zip(positions, snapshot.documents(positions.tolist()), strict=True)}
        gains = {ids.get(document, -1 - n): float(gain) for n, (document, gain) in enumerate(qrels[id_].items())}
        evidence = _evidence(hybrid, index_name, snapshot, text, vector, ranked)
        labels = np.array([np.floor(gains.get(int(position), 0.0)) for position in positions], np.float64)
        questions.append(_Labelled(Judged(features(evidence), given, labels), positions, gains))
    return questions


def _evidence(
    hybrid: HybridRetriever, index_name: str | None, snapshot: BaseSnapshot, query: str, vector: Vectors, found: Ranked
) -> Evidence:
    positions = found.ranking.positions
    vectors = _no_vectors(len(positions)) if index_name is None else snapshot.vectors(index_name, positions)
    rankings = [found.sources[stage] for stage in _stages(hybrid)]
    return Evidence(rankings, found.ranking, len(query.split()), vectors, vector)


def _stages(hybrid: HybridRetriever) -> list[str]:
    return [retriever.stage for retriever in hybrid.retrievers]


def _names(hybrid: HybridRetriever) -> list[str]:
    return feature_names(_stages(hybrid))


def _no_vectors(count: int) -> Vectors:
    return np.zeros((count, 0), np.float32)
