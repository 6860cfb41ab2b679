"""Measures against ir-measures itself, and against their formulas written out."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit import InputError
from ragkit.errors import MissingExtraError
from ragkit.evaluation.metrics import evaluate

IDS = [f"d{i}" for i in range(12)]
RUNS = st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from(IDS), unique=True), max_size=4)
QRELS = st.dictionaries(
    st.sampled_from("abcd"), st.dictionaries(st.sampled_from(IDS), st.integers(0, 3), min_size=1), min_size=1, max_size=4
)


def documents(ids: Sequence[str]) -> list[Document]:
    """Documents whose scores say the opposite of their order."""
    return [Document(id=id_, page_content="", metadata={"relevance_score": float(n)}) for n, id_ in enumerate(ids)]


def ndcg(ranking: Sequence[str], judged: dict[str, int], cut: int) -> float:
    gains = [judged.get(id_, 0) for id_ in ranking[:cut]]
    ideal = sorted(judged.values(), reverse=True)[:cut]
    best, found = (sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values, 1)) for values in (ideal, gains))
    return found / best if best else 0.0


def test_a_case_computed_by_hand() -> None:
    found = {"q": documents(["x", "a", "b"]), "unjudged": documents(["a"])}
    qrels = {"q": {"a": 2, "b": 1, "c": 1, "x": 0}, "empty": {"a": 1}}
    values = evaluate(found, qrels, ["nDCG@10", "nDCG@2", "R@100", "RR@10", "P@2"])
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    expected = {
        "nDCG@10": (2 / math.log2(3) + 1 / 2) / ideal / 2,
        "nDCG@2": (2 / math.log2(3)) / (2 + 1 / math.log2(3)) / 2,
        "R@100": 2 / 3 / 2,
        "RR@10": 1 / 2 / 2,
        "P@2": 1 / 2 / 2,
    }
    assert values == pytest.approx(expected)
    assert list(values) == list(expected)


@given(RUNS, QRELS)
@settings(max_examples=60, deadline=None)
def test_the_order_given_counts(run: dict[str, list[str]], qrels: dict[str, dict[str, int]]) -> None:
    values = evaluate({query: documents(ids) for query, ids in run.items()}, qrels, ["nDCG@5", "RR@10", "R@3"])
    mean: dict[str, float] = dict.fromkeys(values, 0.0)
    for query, judged in qrels.items():
        ranking, good = run.get(query, []), {id_ for id_, grade in judged.items() if grade}
        ranks = [rank for rank, id_ in enumerate(ranking[:10], 1) if id_ in good]
        mean["nDCG@5"] += ndcg(ranking, judged, 5) / len(qrels)
        mean["RR@10"] += (1 / ranks[0] if ranks else 0) / len(qrels)
        mean["R@3"] += (len(good & set(ranking[:3])) / len(good) if good else 0) / len(qrels)
    assert values == pytest.approx(mean)


def test_values_are_those_of_ir_measures() -> None:
    rng = random.Random(3)
    run = {f"q{q}": rng.sample(range(300), 150) for q in range(20)}
    qrels = {f"q{q}": {str(i): rng.randint(0, 2) for i in rng.sample(range(300), 30)} for q in range(22)}
    scored = [ir_measures.ScoredDoc(q, str(i), 1000 - rank) for q, ids in run.items() for rank, i in enumerate(ids)]
    judged = [ir_measures.Qrel(q, i, grade) for q, grades in qrels.items() for i, grade in grades.items()]
    names = ["nDCG@10", "R@100", "RR@10", "AP", "P@5", "Success@1", "Judged@10"]
    expected = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names], judged, scored)
    values = evaluate({query: documents([str(i) for i in ids]) for query, ids in run.items()}, qrels, names)
    assert values == pytest.approx({str(name): expected[ir_measures.parse_measure(name)] for name in names})


def test_the_default_measures() -> None:
    assert evaluate({"q": documents(["a"])}, {"q": {"a": 1}}) == {"nDCG@10": 1.0, "R@100": 1.0, "RR@10": 1.0}
    assert evaluate({}, {"q": {"a": 1}}) == {"nDCG@10": 0.0, "R@100": 0.0, "RR@10": 0.0}


def test_a_document_that_comes_twice_counts_where_it_comes_first() -> None:
    assert evaluate({"q": documents(["a", "b", "a"])}, {"q": {"a": 1}}, ["RR@10"]) == {"RR@10": 1.0}
    assert evaluate({"q": documents(["a", "a", "b"])}, {"q": {"b": 1}}, ["RR@10"]) == {"RR@10": 0.5}


@pytest.mark.parametrize("name", ["speed", "nDCG@ten", "nDCG@10("])
def test_an_unknown_measure_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"measure: .* cannot be computed"):
        evaluate({}, {"q": {"a": 1}}, [name])


def test_without_the_extra_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragkit\[eval\]'"):
        evaluate({}, {})
