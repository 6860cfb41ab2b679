"""The table of fusions, on a dataset of five passages with a stand-in encoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit.compressor import Task
from ragkit.rerankers.base import Reranker
from ragkit.store.store import Store, bm25_and_dense

pytest.importorskip("ir_measures", reason="ir-measures is not installed")

TEXTS = ["the cat sat on the mat", "dogs bark at the cat", "a fish swims", "cat and dog and fish", "the old mill"]


def write(folder: Path, split: str, questions: dict[str, tuple[str, str]]) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    records = [{"_id": str(n), "title": "", "text": text} for n, text in enumerate(TEXTS)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
    with (folder / "queries.jsonl").open("a") as file:
        file.writelines(json.dumps({"_id": id_, "text": text}) + "\n" for id_, (text, _) in questions.items())
    rows = [f"{id_}\t{relevant}\t1" for id_, (_, relevant) in questions.items()]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")


@pytest.fixture
def hybrid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_encoder: Any) -> Iterator[Any]:
    """The script, over a small dataset "scifact" with a training split and a German one without."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    write(tmp_path / "scifact", "train", {"t1": ("mat", "0"), "t2": ("swims", "2"), "t3": ("mill", "4")})
    write(tmp_path / "scifact", "test", {"q1": ("cat mat", "0"), "q2": ("fish dog", "3")})
    write(tmp_path / "xquad" / "de", "test", {"q1": ("mats", "0")})
    write(tmp_path / "xquad" / "fr", "test", {"q1": ("mill", "4")})
    import hybrid

    stores: dict[str, Store] = {}

    def open_store(name: str) -> Store:
        if name not in stores:
            stores[name] = Store.memory(bm25_and_dense(make_encoder(), hybrid.language(name)))
            stores[name].upsert(hybrid.load(name, "test").documents)
        return stores[name]

    for name, value in (("DATA", tmp_path), ("FIGURES", tmp_path / "f.json"), ("RESULTS", tmp_path / "r.md")):
        monkeypatch.setattr(hybrid, name, value)
    monkeypatch.setattr(hybrid, "open_store", open_store)
    yield hybrid
    sys.modules.pop("hybrid")


class Backwards(Reranker):
    """In place of MaxSim: the last passage is the best."""

    def scores(self, tasks: Sequence[Task]) -> list[Any]:
        return [np.arange(len(task.documents), dtype=np.float64) for task in tasks]


def test_every_system_is_in_the_table_and_earlier_sets_stay(
    hybrid: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hybrid, "MaxSimReranker", Backwards)
    hybrid.main(["scifact", "--maxsim", "1"])
    hybrid.main(["xquad/de", "--maxsim", "0"])
    hybrid.main(["xquad/fr"])
    report = hybrid.RESULTS.read_text()
    assert report in capsys.readouterr().out
    english, others = report.split("## xquad/de")
    german, languages = others.split("## Languages")
    assert "scifact test: 5 documents, 2 of 2 questions" in english
    assert "white space" not in english
    for system in ("BM25", "dense", "RRF", "CC, min-max, fitted", "DBSF", "Fast-Forward", "PRF: RM3", "PRF: Rocchio", "default"):
        assert f"| {system}" in english
        assert f"| {system}" in german
    assert ("| LTR: " in english) == bool(find_spec("lightgbm"))
    assert "| its first 50 by MaxSim, 1 questions |" in english
    assert "by MaxSim" not in german
    # "mats" has the stem of "mat" in neither
    assert "| BM25, tokens between white space | 0.0000 |" in german
    assert "| xquad/de | german | 0.0000 | " in languages
    assert "| xquad/fr | french | 1.0000 | 1.0000 | +0.0000 |" in languages
    assert "xquad/fr" not in german


def test_the_first_are_reordered_and_the_others_stay_behind(hybrid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "MaxSimReranker", Backwards)
    monkeypatch.setattr(hybrid, "RERANKED", 3)
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)]
    found = hybrid.by_maxsim(lambda texts: [documents, documents[:2], []])(["one", "two", "none"])
    assert [[document.id for document in each] for each in found] == [["2", "1", "0", "3", "4"], ["1", "0"], []]


def test_tokens_between_white_space(hybrid: Any) -> None:
    plain = hybrid.Whitespace("english")
    assert plain.analyze(["The cats, THE mats.", "日本語 です"]) == [["the", "cats,", "the", "mats."], ["日本語", "です"]]
    flat = plain.analyze_flat(["a b a", "b"])
    assert (flat.starts.tolist(), flat.tokens.tolist(), flat.terms) == ([0, 3, 4], [0, 1, 0, 1], ["a", "b"])
