"""The work that tuning shares: each passage is judged once, orders are as computed straight, choices as they were planted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from pydantic import PrivateAttr

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError
from ragkit.chains.config import PipelineConfig
from ragkit.compressor import Task
from ragkit.evaluation.collection import Collection, Gold
from ragkit.evaluation.tuned import THRESHOLDS, Candidates, Cost, Setting
from ragkit.evaluation.tuning import Goal
from ragkit.evaluation.tuning_work import WAYS, Workbench
from ragkit.pruners.base import Judgement, Pruner
from ragkit.rerankers.base import Reranker
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.store.store import Store, bm25_and_dense

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron"]


class Oracle(Reranker):
    """Knows the number that a question ends in, and scores passages by it."""

    sign: float = 1.0
    _asked: list[tuple[str, str]] = PrivateAttr(default_factory=list)

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        self._asked += [(task.query, str(document.id)) for task in tasks for document in task.documents]
        return [np.array([self.sign * (d.id == task.query.split()[-1]) for d in task.documents]) for task in tasks]


class FirstSentence(Pruner):
    """Thinks that first sentences are worth 0.5, others nothing."""

    def judge(self, tasks: Sequence[Task], units: Any) -> list[list[Judgement]]:
        return [[Judgement(np.where(np.arange(len(its)) == 0, 0.5, 0.0)) for its in task_units] for task_units in units]

    def select(self, task: Task, units: Any, judgements: Any) -> list[Any]:
        return [judgement.units > 0.9 for judgement in judgements]


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    texts = [f"{' '.join(rng.choice(WORDS, 4)).capitalize()}. More of {rng.choice(WORDS)}." for _ in range(30)]
    documents = {str(n): Document(id=str(n), page_content=text) for n, text in enumerate(texts)}
    queries = {f"q{n}": f"{texts[n].split()[0].lower()} {rng.choice(WORDS)} {n}" for n in range(10)}
    qrels = {f"q{n}": {str(n): 1} for n in range(10)} | {"q9": {"0": 0}}
    gold = {"q1": (Gold("1", texts[1].split(".")[0] + ".", (0, texts[1].index(".") + 1)),)}
    return Collection("planted", "train", documents, queries, qrels, {}, gold)


@pytest.fixture(scope="module")
def store(collection: Collection, make_encoder: Any) -> Store:
    store = Store.memory(bm25_and_dense(make_encoder()))
    store.upsert(list(collection.documents.values()))
    return store


def candidates() -> Candidates:
    return Candidates("en", [], [5])


def flat(candidates: Candidates) -> dict[Setting, Cost]:
    """Reranking costs 100 ms, all else 1."""
    return {setting: Cost(100.0 if setting.reranker else 1.0, 0.0) for setting in candidates.settings}


def test_rankings_are_those_of_the_retrievers(store: Store, collection: Collection) -> None:
    bench = Workbench(store, collection, rerankers={})
    assert bench.ids == [f"q{n}" for n in range(9)]  # q9 has nothing relevant
    everything = np.arange(9)
    weights = list(bench.weights(everything))
    retrievers = {
        "bm25": BM25Retriever(store=store),
        "dense": DenseRetriever(store=store),
        "hybrid": HybridRetriever(store=store),
        "rrf": HybridRetriever(store=store, fusion="rrf"),
        "fitted": HybridRetriever(store=store, weights=weights),
        "multi-hop": MultiHopRetriever(store=store, retriever=HybridRetriever(store=store)),
    }
    assert set(retrievers) == set(WAYS)
    for way, retriever in retrievers.items():
        expected = retriever.batch([collection.queries[id_] for id_ in bench.ids], k=100)
        found = bench.rankings(way, everything)
        ids = [[document.id for document in store.snapshot.documents(ranking.positions.tolist())] for ranking in found]
        assert ids == [[hit.id for hit in hits] for hits in expected]


def test_a_reranker_is_asked_once_for_just_what_a_pipeline_hands_it(store: Store, collection: Collection) -> None:
    oracle = Oracle()
    told: list[tuple[int, int]] = []
    bench = Workbench(store, collection, rerankers={"oracle": oracle}, progress=lambda *counts: told.append(counts))
    rankings = bench.rankings("hybrid", np.arange(9))
    for depth in (3, 8, 8, 5):
        orders = bench.orders(rankings, "oracle", depth)
        for id_, ranking, order in zip(bench.ids, rankings, orders, strict=True):
            cut = ranking.positions[:depth].tolist()
            names = {p: d.id for p, d in zip(cut, store.snapshot.documents(cut), strict=True)}
            right = [p for p in cut if names[p] == id_.removeprefix("q")]
            assert order.tolist() == right + [p for p in cut if p not in right]
    assert len(oracle._asked) == 9 * (3 + 8 + 5)
    assert told == [(27, 27), (72, 72), (45, 45)]
    values = bench.values(bench.orders(rankings, "oracle", 8))
    inside = [(collection.queries[id_], id_.removeprefix("q")) in oracle._asked for id_ in bench.ids]
    assert values.tolist() == [float(found) for found in inside]


def test_evidence_is_marked_in_the_passages_of_questions_that_have_some(store: Store, collection: Collection) -> None:
    bench = Workbench(store, collection, rerankers={}, pruner=FirstSentence())
    orders = bench.orders(bench.rankings("bm25", np.arange(9)), None, 100)
    marked = bench.marked(orders, 30)
    assert [bool(its) for its in marked] == [id_ == "q1" for id_ in bench.ids]
    [passage] = [its for its in marked[1] if its.gold]
    assert passage.gold == [passage.units[0]]
    assert passage.scores.tolist() == [0.5, 0.0]
    assert Workbench(store, collection, rerankers={}).marked(orders, 5) == [[]] * 9


def test_a_reranker_that_is_right_is_chosen_and_one_that_is_wrong_is_dropped(store: Store, collection: Collection) -> None:
    some = candidates()
    for sign in (1.0, -1.0):
        bench = Workbench(store, collection, rerankers=dict.fromkeys(some.rerankers, Oracle(sign=sign)), pruner=FirstSentence())
        tuned = some.choose(bench, flat(some), Goal(ms=100), 0.9)
        assert (tuned.setting.reranker is None) == (sign < 0)
        assert PipelineConfig(**tuned.config.model_dump()) == tuned.config
        assert tuned.front == sorted(tuned.front, key=lambda row: row.ms)
        assert {row.ms for row in tuned.front} <= {1.0, 100.0}
    # the one gold sentence has 0.5
    assert tuned.config.stages[-1] == {"type": "provence", "threshold": max(t for t in THRESHOLDS if t < 0.5)}


def test_where_the_default_costs_too_much_it_starts_from_retrieval_alone(store: Store, collection: Collection) -> None:
    some = candidates()
    costs = {setting: Cost(10.0 * setting.depth if setting.reranker else 1.0, 0.0) for setting in some.settings}
    bench = Workbench(store, collection, rerankers=dict.fromkeys(some.rerankers, Oracle()))
    tuned = some.choose(bench, costs, Goal(ms=60), 0.9)
    assert tuned.choice.start == Setting("hybrid", None, 20)
    assert (tuned.setting.reranker or "").startswith("provence-reranker")
    assert tuned.setting.depth == 5  # as many as may be
    cheapest = some.choose(bench, {**costs, Setting("bm25", None, 20): Cost(0.5, 0.0)}, Goal(ms=0.7), 0.9)
    assert cheapest.setting == cheapest.choice.start == Setting("bm25", None, 20)


def test_the_default_is_among_the_candidates_and_stays_where_nothing_is_known_to_be_better(
    store: Store, collection: Collection
) -> None:
    some = candidates()
    assert some.default == Setting("hybrid", "provence-reranker", 20, 0.5)
    assert some.default in some.settings
    assert some.default_config.retriever == {"type": "hybrid", "k": 20}
    same = Workbench(store, collection, rerankers=dict.fromkeys(some.rerankers, Oracle()))
    tuned = some.choose(same, flat(some), Goal(), 0.95)
    assert tuned.chosen.value >= tuned.default.value
    assert tuned.config.stages[-1]["threshold"] == 0.3  # no evidence is known: as it was
    assert np.isnan(tuned.chosen.evidence)
    with pytest.raises(InputError, match=r"^reranker: extractive is none"):
        Candidates("de", [{"type": "extractive"}], []).build_rerankers(store)
    german = Candidates("de", [], [])
    assert german.default == Setting("hybrid", None, 20)
    assert german.rerankers == {}


def test_a_pruner_has_the_dtype_of_its_reranker_so_that_they_share_their_pass() -> None:
    some = candidates()
    depths = {name: {setting.depth for setting in some.settings if setting.reranker == name} for name in some.rerankers}
    if "provence-reranker int8" not in depths:
        pytest.skip("no 8-bit integers on this machine")
    assert depths == {"provence-reranker": {20}, "provence-reranker int8": {5, 20}}
    stages = some.config(Setting("hybrid", "provence-reranker int8", 5, 0.3), None, some.pruner).stages
    assert stages == [
        {"type": "provence-reranker", "dtype": "int8"},
        {"type": "blend", "weight": 0.3},
        {"type": "duplicates"},
        {"type": "provence", "threshold": 0.3, "dtype": "int8"},
    ]
    assert some.config(Setting("multi-hop", "provence-reranker", 20), None, None).retriever == {"type": "multi-hop", "k": 20}


def test_too_few_questions(store: Store, collection: Collection) -> None:
    one = Collection("one", "train", collection.documents, {"q1": "amber"}, {"q1": {"1": 1}}, {}, {})
    with pytest.raises(InputError, match=r"^questions: tuning needs three .*, one has 1"):
        Workbench(store, one, rerankers={})
