"""Learned fusion: features against a straight-line reference, a planted signal found, the same trees twice, nothing found."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError, provenance
from ragkit.errors import MissingExtraError
from ragkit.indexes.base import Ranking, empty_ranking
from ragkit.retrievers.fusion_features import Evidence, directions, feature_names, features
from ragkit.retrievers.lambdamart import Judged, LambdaMART
from ragkit.retrievers.learned_fusion import FittedFusion, LearnedFusionRetriever, fit_fusion
from ragkit.store.store import Store, bm25_and_dense

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jade"]


def evidence(seed: int, sizes: tuple[int, int], candidates: int) -> Evidence:
    rng = np.random.default_rng(seed)
    rankings = [Ranking(rng.permutation(30)[:size], np.sort(rng.normal(size=size))[::-1]) for size in sizes]
    found = np.unique(np.concatenate([ranking.positions for ranking in rankings]))
    positions = rng.permutation(found)[:candidates]
    fused = Ranking(positions, np.sort(rng.random(len(positions)))[::-1])
    return Evidence(rankings, fused, 4, rng.normal(size=(len(positions), 5)).astype(np.float32), rng.normal(size=5).astype("f4"))


def reference(given: Evidence) -> list[dict[str, float]]:
    """Every feature of every candidate, one at a time."""
    rows = []
    fused = given.fused.positions.tolist()
    vector = dict(zip(fused, given.vectors.astype(float), strict=True))
    tops = [set(ranking.positions[:10].tolist()) for ranking in given.rankings]
    for rank, position in enumerate(fused, 1):
        row = {
            "fused": given.fused.scores[rank - 1],
            "fused_behind": given.fused.scores[0] - given.fused.scores[rank - 1],
            "fused_reciprocal_rank": 1 / rank,
            "inner_product": sum(vector[position] * given.query.astype(float)),
            "terms": given.terms,
            "agreement": len(tops[0] & tops[1]) / 10,
        }
        for name, (positions, scores) in zip(("bm25", "dense"), given.rankings, strict=True):
            places, span = positions.tolist(), (scores[0] - scores[-1]) if len(scores) else 0.0
            scaled = [(score - scores[-1]) / span if span else 1.0 for score in scores]
            lowest, best = (scores[-1], scores[0]) if len(scores) else (0.0, 0.0)
            at = places.index(position) if position in places else None
            row[f"score_{name}"] = lowest if at is None else scores[at]
            row[f"scaled_{name}"] = 0.0 if at is None else scaled[at]
            row[f"reciprocal_rank_{name}"] = 0.0 if at is None else 1 / (at + 1)
            row[f"found_{name}"] = float(at is not None)
            row[f"behind_{name}"] = best - row[f"score_{name}"]
            near = [
                (weight, float(vector[position] @ vector[other]))
                for other, weight in list(zip(places, scaled, strict=True))[:10]
                if other in vector and other != position
            ]
            total = sum(weight for weight, _ in near)
            row[f"mean_similarity_{name}"] = sum(weight * product for weight, product in near) / total if total else 0.0
            row[f"highest_similarity_{name}"] = max((product for _, product in near), default=0.0)
            row[f"best_{name}"] = best
            row[f"lead_{name}"] = (best - scores[min(1, len(scores) - 1)]) / abs(best) if best else 0.0
            row[f"fall_{name}"] = (best - scores[min(9, len(scores) - 1)]) / abs(best) if best else 0.0
        rows.append(row)
    return rows


@given(st.integers(0, 10**6), st.integers(0, 25), st.integers(1, 25), st.integers(1, 30))
def test_features_are_those_of_a_straight_computation(seed: int, sparse: int, dense: int, candidates: int) -> None:
    question = evidence(seed, (sparse, dense), candidates)
    names = feature_names(["bm25", "dense"])
    expected = reference(question)
    assert names == list(expected[0])
    np.testing.assert_allclose(features(question), [[row[name] for name in names] for row in expected], atol=1e-5)
    assert len(directions(2)) == len(names)


def test_features_without_vectors_candidates_or_hits() -> None:
    names, nothing = feature_names(["bm25", "dense"]), np.zeros((0, 0), np.float32)
    assert features(Evidence([empty_ranking()] * 2, empty_ranking(), 2, nothing, nothing[:0].ravel())).shape == (0, len(names))
    one = Ranking(np.array([7]), np.array([0.0]))
    row = dict(zip(names, features(Evidence([one, empty_ranking()], one, 2, np.zeros((1, 0)), np.zeros(0)))[0], strict=True))
    assert row["found_bm25"] == row["scaled_bm25"] == row["fused_reciprocal_rank"] == 1
    assert row["mean_similarity_bm25"] == row["highest_similarity_bm25"] == row["inner_product"] == row["found_dense"] == 0


def planted(count: int, seed: int) -> list[Judged]:
    """Questions whose relevant candidate has the highest second feature; the first one and the given score are noise."""
    rng, questions = np.random.default_rng(seed), []
    for _ in range(count):
        values = rng.random((20, 2))
        questions.append(Judged(values, 0.01 * rng.random(20), (values[:, 1] == values[:, 1].max()).astype(float)))
    return questions


def test_a_planted_signal_comes_out_on_top() -> None:
    pytest.importorskip("lightgbm")
    model = LambdaMART.fit(planted(60, 0), ["noise", "signal"], [0, 1], trees=60)
    right = [int(np.argmax(model.scores(q.features, q.given))) == int(np.argmax(q.gains)) for q in planted(50, 1)]
    assert np.mean(right) > 0.8
    signal = model.scores(np.column_stack([np.full(50, 0.5), np.linspace(0, 1, 50)]), np.zeros(50))
    assert (np.diff(signal) >= 0).all()  # more of what cannot speak against a candidate never lowers its score
    assert model.scores(np.zeros((0, 2)), np.zeros(0)).shape == (0,)


def test_trees_are_the_same_again_and_survive_a_file(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    questions = planted(30, 0)
    models = [LambdaMART.fit(questions, ["noise", "signal"], [0, 1]) for _ in range(2)]
    models[0].save(tmp_path / "one.txt")
    models[1].save(tmp_path / "two.txt")
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()
    loaded = LambdaMART.load(tmp_path / "one.txt")
    assert loaded.names == ["noise", "signal"]
    for question in questions:
        expected = models[0].scores(question.features, question.given)
        np.testing.assert_array_equal(loaded.scores(question.features, question.given), expected)


def test_files_that_are_no_model_and_questions_without_a_choice_are_named(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    with pytest.raises(InputError, match=r"^model: cannot read .*missing"):
        LambdaMART.load(tmp_path / "missing.txt")
    for text in ("", "hello"):
        (tmp_path / "wrong.txt").write_text(text)
        with pytest.raises(InputError, match=r"^model: .*wrong.txt is no model"):
            LambdaMART.load(tmp_path / "wrong.txt")
    nothing = Judged(np.zeros((3, 1)), np.zeros(3), np.zeros(3))
    empty = Judged(np.zeros((0, 1)), np.zeros(0), np.zeros(0))
    for questions in ([], [nothing, empty]):
        with pytest.raises(InputError, match=r"^questions: none has both"):
            LambdaMART.fit(questions, ["feature"], [0])


def test_without_lightgbm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    real = builtins.__import__

    def none_such(name: str, *rest: Any, **more: Any) -> Any:
        if name == "lightgbm":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", none_such)
    for call in (lambda: LambdaMART.load("model.txt"), lambda: LambdaMART.fit([], [], [])):
        with pytest.raises(MissingExtraError, match=r"pip install 'ragkit\[ltr\]'"):
            call()


def corpus(make_encoder: Any) -> Store:
    """Sixty passages; what a question means is in its second word, which the passage that answers it starts with."""
    store = Store.memory(bm25_and_dense(make_encoder()))
    rng = np.random.default_rng(0)
    texts = [" ".join([*rng.choice(WORDS, 3), f"number{n % 12}", *rng.choice(WORDS, 4)]) for n in range(60)]
    store.upsert([Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(texts)])
    return store


@pytest.fixture(scope="module")
def fitted(make_encoder: Any) -> FittedFusion:
    pytest.importorskip("lightgbm")
    store = corpus(make_encoder)
    rng = np.random.default_rng(1)
    queries = {str(n): f"{rng.choice(WORDS)} {rng.choice(WORDS)} number{n % 12}" for n in range(40)}
    # relevant is the first passage with the question's number: the default fusion cannot know that
    return fit_fusion(HybridRetriever(store=store, depth=30), queries, {id_: {str(int(id_) % 12): 1} for id_ in queries})


def test_fitting_reports_held_out_questions_and_scores_are_those_of_the_model(fitted: FittedFusion) -> None:
    retriever = fitted.retriever
    assert 0 < fitted.unlearned < 1
    assert 0 < fitted.held_out <= 1
    hybrid, query = retriever.hybrid, "amber jade number3"
    assert hybrid is not None
    snapshot = retriever.store.snapshot
    [found] = hybrid.rank(snapshot, [query], 30, None)
    positions = found.ranking.positions
    parts = Evidence(
        [found.sources["bm25"], found.sources["dense"]],
        found.ranking,
        3,
        snapshot.vectors("dense", positions),
        snapshot.encode("dense", [query])[0],
    )
    assert isinstance(retriever.model, LambdaMART)
    scores = retriever.model.scores(features(parts), found.ranking.scores)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], positions[i]))[:7]
    hits = retriever.invoke(query, k=7)
    assert [hit.metadata["n"] for hit in hits] == [int(d.id or "") for d in snapshot.documents(positions[order].tolist())]
    assert [hit.metadata["relevance_score"] for hit in hits] == pytest.approx(scores[order].tolist())
    stages = [result.stage for result in provenance(hits[0]).stages]
    assert stages[-2:] == ["hybrid", "learned_fusion"]


async def test_filters_blank_questions_and_every_way_to_ask(fitted: FittedFusion) -> None:
    queries = ["amber number3", " ", "jade number5"]
    answers = [[hit.id for hit in hits] for hits in fitted.retriever.batch(queries, k=5)]
    assert answers == [[hit.id for hit in hits] for hits in await fitted.retriever.abatch(queries, k=5)]
    assert list(map(len, answers)) == [5, 0, 5]
    assert [hit.id for hit in fitted.retriever.invoke("amber", filter={"n": 7})] == ["7"]
    assert fitted.retriever.invoke("amber", filter={"n": 700}) == []


def test_a_saved_model_is_the_same_retriever_and_only_for_its_retrievers(fitted: FittedFusion, tmp_path: Path) -> None:
    fitted.retriever.save(tmp_path / "fusion.txt")
    store = fitted.retriever.store
    again = LearnedFusionRetriever(hybrid=HybridRetriever(store=store, depth=30), model=tmp_path / "fusion.txt")
    queries = [f"{word} number{n}" for n, word in enumerate(WORDS)]
    assert again.batch(queries) == fitted.retriever.batch(queries)
    assert LearnedFusionRetriever(store=store, model=str(tmp_path / "fusion.txt")).invoke("amber")  # as a YAML file names it
    alone = HybridRetriever(retrievers=[DenseRetriever(store=store)])
    with pytest.raises(ValidationError, match="model was fitted on other retrievers than dense"):
        LearnedFusionRetriever(hybrid=alone, model=tmp_path / "fusion.txt")
    with pytest.raises(ValidationError, match="same store"):
        LearnedFusionRetriever(store=corpus(type(store.encoder)), hybrid=alone, model=tmp_path / "fusion.txt")


def test_without_a_dense_index_and_bad_labels(make_encoder: Any) -> None:
    pytest.importorskip("lightgbm")
    store = corpus(make_encoder)
    hybrid = HybridRetriever(retrievers=[BM25Retriever(store=store)])
    queries = {str(n): f"number{n % 12}" for n in range(10)}
    qrels = {id_: {str(int(id_) + 12): 1} for id_ in queries}
    assert fit_fusion(hybrid, queries, qrels, index_name=None).retriever.invoke("number3", k=3)
    with pytest.raises(InputError, match=r"^queries: .*at least two, not 1"):
        fit_fusion(hybrid, {"0": "number0"}, qrels)
    with pytest.raises(InputError, match=r"^qrels: question '3' has no relevant document"):
        fit_fusion(hybrid, queries, {**qrels, "3": {"1": 0}})
