"""The made-up corpora have the properties that they promise, and the judge of the benchmark is right."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy is not installed")


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    """The benchmarks are scripts, which import one another by name."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import sparse_bm25
        import sparse_learned
        import sparse_problem
        import synthetic

        yield {"synthetic": synthetic, "problem": sparse_problem, "bm25": sparse_bm25, "learned": sparse_learned}
    finally:
        sys.path.remove(folder)


def test_texts_are_zipfian_bursty_topical_and_the_same_again(modules: Any) -> None:
    synthetic = modules["synthetic"]
    corpus, again = synthetic.texts(5_000, seed=3), synthetic.texts(5_000, seed=3)
    np.testing.assert_array_equal(corpus.tokens, again.tokens)
    assert len(corpus) == 5_000
    assert np.diff(corpus.starts).mean() == pytest.approx(60, rel=0.05)
    frequencies = np.sort(np.bincount(corpus.tokens))[::-1].astype(float)
    ranks = np.arange(10, 1_000)
    slope = np.polyfit(np.log(ranks), np.log(frequencies[ranks]), 1)[0]
    assert -1.3 < slope < -0.7
    rare = [{term for term in corpus[i].tolist() if term >= 100} for i in range(2_000)]
    near = np.mean([len(a & b) for a, b in pairwise(rare)])
    far = np.mean([len(a & b) for a, b in zip(rare, rare[1_000:], strict=False)])
    assert near > 3 * far
    repeats = np.mean([max(Counter(t for t in corpus[i].tolist() if t >= 5_000).values(), default=0) for i in range(500)])
    flat = synthetic.texts(5_000, seed=3, topical=0, repeated=0)
    assert repeats > np.mean([max(Counter(t for t in flat[i].tolist() if t >= 5_000).values(), default=0) for i in range(500)])


def test_questions_come_from_passages(modules: Any) -> None:
    synthetic = modules["synthetic"]
    corpus = synthetic.texts(300)
    passages = [set(corpus[i].tolist()) for i in range(300)]
    asked = synthetic.questions(corpus, 100)
    assert len(asked) == 100
    for i in range(100):
        terms = asked[i].tolist()
        assert 2 <= len(terms) == len(set(terms)) <= 8
        assert min(terms) >= 50
        assert any(set(terms) <= passage for passage in passages)


def test_sparse_vectors_look_like_those_of_a_model(modules: Any) -> None:
    synthetic = modules["synthetic"]
    documents = synthetic.splade(12_000)  # more than one block
    asked = synthetic.splade_questions(documents, 50)
    for vectors, count, least in ((documents, 12_000, 110), (asked, 50, 25)):
        assert len(vectors) == count
        assert least < np.diff(vectors.starts).mean() < least * 1.25
        inside = np.ones(len(vectors.terms), bool)
        inside[vectors.starts[:-1]] = False
        assert (np.diff(vectors.terms, prepend=-1)[inside] > 0).all()  # each term once, ascending
        assert vectors.terms.min() >= 0
        assert vectors.terms.max() < 30_522
        assert vectors.weights.min() > 0
        assert vectors.weights.max() <= 3.5
    assert np.median(documents.weights) < documents.weights.mean() < 1
    rare = documents.terms > 10_000
    assert documents.weights[rare].mean() > 1.3 * documents.weights[documents.terms < 100].mean()
    again = synthetic.splade(12_000)
    np.testing.assert_array_equal(documents.weights, again.weights)


def test_exact_answers_are_those_of_the_formula(modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modules["problem"].SIZES, "tiny", 200)
    problem = modules["problem"].Problem.make("zipf-tiny-shuffled", tmp_path, 20)
    problem.solve()
    documents = [Counter(problem.documents[i].tolist()) for i in range(200)]
    mean = np.mean([document.total() for document in documents])
    for i, (positions, scores) in enumerate(problem.exact[0]):
        expected = {}
        for position, document in enumerate(documents):
            score = 0.0
            for term in problem.questions[i].tolist():
                having = sum(term in each for each in documents)
                idf = math.log(1 + (200 - having + 0.5) / (having + 0.5))
                score += idf * document[term] / (document[term] + 1.2 * (0.25 + 0.75 * document.total() / mean))
            if score:
                expected[position] = score
        best = sorted(expected, key=lambda position: (-expected[position], position))[:100]
        assert positions.tolist() == best
        np.testing.assert_allclose(scores, [expected[position] for position in best], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "name", "package"),
    [
        ("bm25", "ragkit", "ragkit"),
        ("bm25", "tantivy", "tantivy"),
        ("bm25", "rank_bm25", "rank_bm25"),
        ("bm25", "langchain", "langchain_community"),
        ("learned", "ragkit", "ragkit"),
        ("learned", "exhaustive, scipy rows", "scipy"),
        ("learned", "bmp", "bmp"),
        ("learned", "pyseismic-lsr", "seismic"),
    ],
)
def test_systems_find_what_is_exact_or_near_it(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, package: str
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setitem(modules["problem"].SIZES, "tiny", 200)
    (tmp_path / "problem").mkdir()
    (tmp_path / "index").mkdir()
    # few terms, else Seismic's time to build would be that of its 30,522 lists
    monkeypatch.setattr(modules["problem"], "splade", lambda count: modules["synthetic"].splade(count, types=300, nonzero=20))
    monkeypatch.setattr(
        modules["problem"], "splade_questions", lambda *given: modules["synthetic"].splade_questions(*given, types=300, nonzero=8)
    )
    problem = modules["problem"].Problem.make(f"{'zipf' if kind == 'bm25' else 'splade'}-tiny", tmp_path / "problem", 20)
    problem.solve()
    made, opened = modules[kind].SYSTEMS[name](), modules[kind].SYSTEMS[name]()
    made.build(problem, tmp_path / "index")
    opened.load(problem, tmp_path / "index")
    answers = opened.search(opened.prepare(problem.questions, np.arange(20)), 10)
    share, difference = modules["problem"].agreement(problem, answers, 10)
    assert share > 0.85
    if name in ("ragkit", "rank_bm25", "exhaustive, scipy rows"):
        assert (share, difference) == (1, pytest.approx(0, abs=1e-5))


def test_agreement_forgives_ties_and_nothing_else(modules: Any, tmp_path: Path) -> None:
    vectors = modules["problem"].SparseVectors
    problem = modules["problem"].Problem(tmp_path, learned=True)
    problem._write("documents", vectors.of([([1], [w]) for w in (1, 3, 2, 2, 2)] + [([2], [9])]))
    problem._write("questions", vectors.of([([1], [2.0])]))
    problem.solve()

    def judge(positions: list[int], scores: list[float]) -> tuple[float, float]:
        answer = np.array(positions, np.int64), np.array(scores)
        return modules["problem"].agreement(problem, [answer], 2)  # type: ignore[no-any-return]

    assert judge([1, 2], [6, 4]) == (1, 0)
    assert judge([1, 4], [6, 4]) == (1, 0)
    assert judge([1, 0], [6, 2]) == (0.5, 0)
    assert judge([1, 5], [6, 9]) == (0.5, 1.5)
    assert judge([], []) == (0, 0)
    assert judge([1, 3], [6.6, 4]) == (1, pytest.approx(0.1))
    share, difference = judge([1, 3], [math.nan, math.nan])
    assert share == 1
    assert math.isnan(difference)
