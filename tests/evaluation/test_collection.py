from __future__ import annotations

import gzip
import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from ragkit.errors import InputError
from ragkit.evaluation.collection import load_collection

ANSWERS = {"q1": ("Red",), "q2": ("four   wheels",), "q3": ("butter", "milk"), "q4": ("the lake",)}


def test_a_folder_is_read(beir: Path) -> None:
    found = load_collection(str(beir))
    assert (found.name, found.split, list(found.queries)) == ("tiny", "test", ["q1", "q2", "q3", "q4", "q5"])
    assert found.qrels["q1"] == {"p1": 2, "p2": 0}
    assert found.answers == ANSWERS
    gold = {id_: [(sentence.document, sentence.text) for sentence in its] for id_, its in found.gold.items()}
    assert gold == {
        "q1": [("p1", "The apple is red.")],
        "q2": [("p3", "Cars have four wheels.")],
        "q3": [("p4", "Cheese is made of milk."), ("p4", "Milk comes from cows.")],
    }
    for its in found.gold.values():
        for sentence in its:
            start, end = sentence.span or (0, 0)
            assert found.documents[sentence.document].page_content[start:end] == sentence.text


def test_the_number_of_questions_can_be_limited(beir: Path) -> None:
    found = load_collection(str(beir), limit=2)
    assert list(found.queries) == list(found.qrels) == list(found.answers) == list(found.gold) == ["q1", "q2"]
    assert len(found.documents) == 6
    assert found.digest == load_collection(str(beir)).digest


def test_the_digest_is_that_of_the_corpus(beir: Path) -> None:
    before = load_collection(str(beir)).digest
    corpus = beir / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Nothing of", "Much of"))
    assert load_collection(str(beir)).digest != before


def test_a_sentence_that_is_not_in_its_document_has_no_place(beir: Path) -> None:
    path = beir / "sentences.test.jsonl"
    path.write_text(path.read_text().replace("The apple is red", "The apple  is red"))
    [sentence] = load_collection(str(beir)).gold["q1"]
    assert sentence.span is None


def test_splits_are_chosen_and_named(beir: Path) -> None:
    assert list(load_collection(str(beir), "train").queries) == ["q1"]
    assert not load_collection(str(beir), "train").gold
    with pytest.raises(InputError, match=r"split: 'dev' is none of those in .*; use one of test, train"):
        load_collection(str(beir), "dev")
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(InputError, match=r"split: 'test' of .* has no question with judgements"):
        load_collection(str(beir))
    (beir / "qrels" / "test.tsv").unlink()
    assert load_collection(str(beir)).split == "train"
    packed = beir / "qrels" / "train.tsv"
    packed.with_name("train.tsv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    assert load_collection(str(beir)).split == "train"
    packed.with_name("train.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"has no qrels/<split>\.tsv"):
        load_collection(str(beir))


def test_judgements_of_questions_without_text_do_not_count(beir: Path) -> None:
    with (beir / "qrels" / "test.tsv").open("a") as file:
        file.write("q9\tp1\t1\n")
    assert "q9" not in load_collection(str(beir)).qrels


def test_documents_have_ids_of_their_own(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "p1", "text": "again"}) + "\n")
    with pytest.raises(InputError, match="has an _id twice"):
        load_collection(str(beir))


Doc = namedtuple("Doc", "doc_id title body")
Doc.default_text = lambda self: f"{self.title} {self.body}"  # type: ignore[attr-defined]
Query = namedtuple("Query", "query_id text")
Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")


class Registered:
    """A dataset as ir_datasets has them."""

    def __init__(self, docs: bool = True) -> None:
        self.docs = docs

    def has_docs(self) -> bool:
        return self.docs

    def has_queries(self) -> bool:
        return True

    has_qrels = has_queries

    def docs_iter(self) -> Any:
        return iter([Doc("d1", "A title", "and text. "), Doc("d2", "", "More")])

    def queries_iter(self) -> Any:
        return iter([Query("1", "which?"), Query("2", "unjudged")])

    def qrels_iter(self) -> Any:
        return iter([Qrel("1", "d1", 2, "0"), Qrel("1", "d2", -1, "0")])


def test_an_id_of_ir_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    ir_datasets = pytest.importorskip("ir_datasets", reason="ir_datasets is not installed")
    known = {"ours/tiny/test": Registered(), "ours/none": Registered(docs=False)}
    monkeypatch.setattr(ir_datasets, "load", known.__getitem__)
    monkeypatch.delenv("RAGKIT_DATA", raising=False)
    for name, split in (("ours/tiny/test", None), ("ours/tiny", "test")):
        found = load_collection(name, split)
        assert (found.name, found.split, found.queries) == (name, "test", {"1": "which?"})
        assert [document.page_content for document in found.documents.values()] == ["A title and text.", "More"]
        assert found.qrels == {"1": {"d1": 2, "d2": -1}}
    with pytest.raises(InputError, match=r"ours/none of ir_datasets has no docs"):
        load_collection("ours/none")
    with pytest.raises(InputError, match=r"DATASET: absent is no folder, .*; nor is 'absent' an id of ir_datasets"):
        load_collection("absent")


def test_what_is_registered_with_ir_datasets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ir_datasets = pytest.importorskip("ir_datasets", reason="ir_datasets is not installed")
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    for name, text in (("docs", "d1\tSome text\n"), ("queries", "1\twhich\n"), ("qrels", "1 0 d1 1\n")):
        (tmp_path / name).write_text(text)
    registered = ir_datasets.create_dataset(*(str(tmp_path / name) for name in ("docs", "queries", "qrels")))
    monkeypatch.setitem(ir_datasets.registry._registered, "ragkit-tests", registered)
    found = load_collection("ragkit-tests")
    assert (found.queries, found.qrels, found.documents["d1"].page_content) == ({"1": "which"}, {"1": {"d1": 1}}, "Some text")


def test_without_ir_datasets_its_ids_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(InputError, match=r"absent is no folder, .* pip install 'ragkit\[eval\]'"):
        load_collection("absent")


def test_sentences_may_hold_no_evidence(beir: Path) -> None:
    path = beir / "sentences.test.jsonl"
    rows = [{**json.loads(line), "gold": []} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = load_collection(str(beir))
    assert (len(collection.queries), collection.gold) == (5, {})
