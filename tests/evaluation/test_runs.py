from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragkit.errors import InputError
from ragkit.evaluation.measures import measure_rankings, parse_measures
from ragkit.evaluation.runs import read_run, write_run

ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")

QRELS = {"q1": {"a": 1, "b": 2, "c": 0}, "q2": {"d": 1}, "q3": {"a": 1}}


def test_runs_come_back(tmp_path: Path) -> None:
    rankings = {"q1": ["b", "é", "a"], "q2": ["x"]}
    write_run(tmp_path / "mine.trec", rankings, "my system")
    assert read_run(tmp_path / "mine.trec") == rankings
    assert (tmp_path / "mine.trec").read_text("utf-8").splitlines()[0] == "q1 Q0 b 1 3 my_system"


def test_a_run_without_a_tag_has_all_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "mine.trec", {"q1": ["a"]}, " ")
    assert read_run(tmp_path / "mine.trec") == {"q1": ["a"]}


def test_a_question_without_documents_counts_as_0() -> None:
    rankings: dict[str, list[str]] = {"q1": ["b"], "q2": [], "q3": []}
    assert measure_rankings(rankings, QRELS, ["Judged@10", "P@1"]).each == {
        "Judged@10": {"q1": 1.0, "q2": 0.0, "q3": 0.0},
        "P@1": {"q1": 1.0, "q2": 0.0, "q3": 0.0},
    }
    assert measure_rankings({"q1": []}, {"q1": {"a": 1}}, ["Judged@10"]).overall == {"Judged@10": 0.0}


def test_others_read_them(tmp_path: Path) -> None:
    rankings = {"q1": ["b", "z", "a"], "q2": ["x", "d"]}
    write_run(tmp_path / "mine.trec", rankings, "mine")
    names = ["nDCG@10", "R@100", "MRR@10", "AP", "P@2"]
    measured = measure_rankings(rankings, QRELS, names)
    measures = [ir_measures.parse_measure(name) for name in names]
    run = list(ir_measures.read_trec_run(str(tmp_path / "mine.trec")))
    direct = ir_measures.calc_aggregate(measures, QRELS, run)
    assert measured.overall == {name: direct[measure] for name, measure in zip(names, measures, strict=True)}
    each = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(measures, QRELS, run)}
    assert {(q, measures[names.index(name)]): v for name, its in measured.each.items() for q, v in its.items()} == each
    assert measured.each["AP"]["q3"] == 0


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 1.00000001, 1.00001, 2]), min_size=1))
@example({"c": 1.00000001, "b": 1, "a": 1.00001})
def test_equal_scores_go_as_trec_eval_has_them(tmp_path_factory: pytest.TempPathFactory, scores: dict[str, float]) -> None:
    path = tmp_path_factory.mktemp("run") / "other.run"
    path.write_text("".join(f"q1 Q0 {document} 1 {score} t\n" for document, score in scores.items()))
    measures = [ir_measures.parse_measure(name) for name in ("AP", "RR", "nDCG@3", "P@1")]
    direct = ir_measures.calc_aggregate(measures, QRELS, ir_measures.read_trec_run(str(path)))
    assert list(measure_rankings(read_run(path), QRELS, ["AP", "RR", "nDCG@3", "P@1"]).overall.values()) == pytest.approx(
        [direct[measure] for measure in measures]
    )


def test_packed_runs_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfq1\tQ0\ta\t2\t0.5\tt\n\nq1 Q0 b 1 7e-1 t\n"))
    assert read_run(tmp_path / "r.gz") == {"q1": ["b", "a"]}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q1 Q0 my doc 1 2.0 t", "line 2: has 7 columns, not the 6"),
        ("q1 Q0 b 1 2.0", "line 2: has 5 columns"),
        ("q1 Q0 b 1 best t", "line 2: the score, .* is 'best'; it must be a finite number"),
        ("q1 Q0 b 1 nan t", "line 2: the score"),
        ("q1 Q0 a 2 1 t", "line 2: question 'q1' has document 'a' a second time"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "bad.trec").write_text(f"q1 Q0 a 1 3 t\n{line}\n")
    with pytest.raises(InputError, match=rf"run: .*bad\.trec, {problem}"):
        read_run(tmp_path / "bad.trec")


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "no.gz").write_text("q1 Q0 a 1 3 t\n")
    for name, problem in (("empty", "holds no line"), ("no.gz", "cannot read"), ("absent", "cannot read .*: No such file")):
        with pytest.raises(InputError, match=problem):
            read_run(tmp_path / name)
    for rankings in ({"q 1": ["a"]}, {"q1": ["a\u2003b"]}, {"q1": [""]}):
        with pytest.raises(InputError, match="which a TREC run cannot hold"):
            write_run(tmp_path / "r", rankings, "t")


@pytest.mark.parametrize("name", ["bogus", "P@0", "nDCG@x", "Accuracy", "", "nDCG@10 AP"])
def test_a_measure_that_is_none_is_named(name: str) -> None:
    with pytest.raises(InputError, match=r"measure: .* cannot be computed by ir-measures"):
        parse_measures(["nDCG@10", name])


def test_a_measure_is_named_once() -> None:
    with pytest.raises(InputError, match="measure: AP is named twice"):
        parse_measures(["AP", "AP"])
