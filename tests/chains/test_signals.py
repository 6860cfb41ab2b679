"""Signals of a pipeline's run, read from its context, and compared with what its stages said."""

from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit import BM25Retriever, ExtractivePruner, HybridRetriever, Pipeline, Store, bm25_and_dense, provenance
from ragkit.chains.context import GroundedContext, Ranked, StageTrace
from ragkit.chains.signals import signals, source_results
from ragkit.rerankers.base import Reranker
from ragkit.retrievers.prediction import nqc, overlap, rank_biased_overlap, smv, wig
from ragkit.store.rarity import Rarity

TEXTS = [
    "The cat sat on the mat. It was a red mat.",
    "A dog barks at the cat. The cat runs away from it.",
    "Fish swim in the sea. Cats like fish.",
    "The mat is red and the dog is brown. Nobody knows why.",
    "Ships sail the sea. Some ships sink.",
]
QUESTION = "Why does the cat like the red mat?"


class Backwards(Reranker):
    """The last comes first."""

    @property
    def stage(self) -> str:
        return "backwards"

    def scores(self, tasks: Any) -> list[Any]:
        return [np.arange(len(task.documents), dtype=np.float64) for task in tasks]


@pytest.fixture
def store(encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(encoder))
    store.upsert([Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)])
    return store


def test_signals_are_those_of_the_stages(store: Store, encoder: Any) -> None:
    hybrid = HybridRetriever(store=store, k=5)
    pipeline = hybrid >> ExtractivePruner(encoder=encoder, threshold=0.3)
    context, documents = pipeline.ground(QUESTION), hybrid.invoke(QUESTION)
    rarity = Rarity(store.snapshot)
    found = signals(context, weigh=rarity.of_text)

    scores = [document.metadata["relevance_score"] for document in documents]
    terms = rarity.of_text(QUESTION)
    assert (found.results, found.top, found.gap) == (len(scores), scores[0], scores[0] - scores[1])
    assert (found.nqc, found.smv, found.wig) == (nqc(scores), smv(scores), wig(scores, len(terms), scores[-1]))

    searched = {name: store.snapshot.search(name, [QUESTION], 100)[0] for name in ("bm25", "dense")}
    ids = {name: [d.id for d in store.snapshot.documents(ranking.positions)] for name, ranking in searched.items()}
    ranks = [{str(id_): n for n, id_ in enumerate(its_ids, 1)} for its_ids in ids.values()]
    assert found.agreement == pytest.approx(overlap(*ranks))
    assert found.rbo == pytest.approx(rank_biased_overlap(*ranks))
    assert found.tops == pytest.approx({name: float(ranking.scores[0]) for name, ranking in searched.items()})
    assert found.spreads == pytest.approx({name: nqc(ranking.scores) for name, ranking in searched.items()})

    shown = rarity.analyzer(" ".join(citation.text for citation in context.citations))
    assert found.coverage == pytest.approx(sum(w for t, w in terms.items() if t in shown) / sum(terms.values()))
    assert found.sentence == max(s.score for p in context.passages for s in p.sentences if s.score is not None)
    assert found.kept == context.tokens_kept / context.tokens_retrieved
    assert found.to_json()["coverage"] == found.coverage


def test_reranking_is_compared_with_retrieval(store: Store) -> None:
    hybrid = HybridRetriever(store=store, k=5)
    context = Pipeline(retriever=hybrid, stages=[Backwards()], k=5).ground(QUESTION)
    ids = [document.id for document in hybrid.invoke(QUESTION)]
    found = signals(context)
    assert found.reranked == 4
    assert found.stability == pytest.approx(
        rank_biased_overlap({str(i): n for n, i in enumerate(ids, 1)}, {str(i): n for n, i in enumerate(reversed(ids), 1)})
    )


def test_a_single_retriever_agrees_with_nobody(store: Store) -> None:
    found = signals(Pipeline(retriever=BM25Retriever(store=store), k=5).ground(QUESTION))
    assert found.top is not None
    assert (found.agreement, found.rbo, found.tops, found.stability) == (None, None, {}, None)


def test_what_a_reranker_added_to_the_records_is_no_source(store: Store) -> None:
    hybrid = HybridRetriever(store=store, k=5)
    context, documents = Pipeline(retriever=hybrid, stages=[Backwards()], k=5).ground(QUESTION), hybrid.invoke(QUESTION)
    said = source_results(context.candidates, "hybrid")
    assert set(said) == {"bm25", "dense"}
    for name, results in said.items():
        assert [result.rank for result in results.values()] == sorted(result.rank for result in results.values())
        for document in documents:
            mine = [result for result in provenance(document).stages if result.stage == name]
            assert mine == ([results[str(document.id)]] if str(document.id) in results else [])


def test_a_context_that_holds_nothing() -> None:
    found = signals(GroundedContext("What now?", (), 0, 0))
    assert (found.results, found.coverage, found.kept) == (0, 0, 0)
    assert {found.top, found.gap, found.nqc, found.wig, found.agreement, found.reranked, found.sentence} == {None}


def test_scores_that_are_not_finite_say_nothing() -> None:
    results = tuple(Ranked(str(n), score) for n, score in enumerate([float("inf"), 3.0, float("nan"), 1.0, None]))
    found = signals(GroundedContext("What now?", (), 0, 0, (StageTrace("theirs", 0.1, 5, results),)))
    assert (found.results, found.top, found.gap) == (5, 3, 2)
