"""Reading datasets in BEIR's layout."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragkit import InputError
from ragkit.evaluation.datasets import load_dataset, read_jsonl

CORPUS = [
    {"_id": "d1", "title": "Title", "text": "Text with\u2028a separator and 日本語."},
    {"_id": "d2", "title": "", "text": "No title."},
    {"_id": 3, "text": "A number as id."},
    {"_id": "d4", "title": None, "text": "  "},
]
QUERIES = [{"_id": "q1", "text": "one?"}, {"_id": 2, "text": "two?", "metadata": {}}, {"_id": "q3", "text": "not judged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n2\t3\t1\n"


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(folder: Path, packed: bool = False, newline: str = "\n", **changed: str) -> Path:
    (folder / "qrels").mkdir()
    texts = {"corpus": lines(CORPUS), "queries": lines(QUERIES), "qrels": QRELS} | changed
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"}
    for key, text in texts.items():
        data = text.replace("\n", newline).encode()
        file = folder / (names[key] + ".gz" * packed)
        file.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_dataset_is_read_whole(tmp_path: Path, packed: bool, newline: str) -> None:
    dataset = load_dataset(str(write(tmp_path, packed, newline)))
    assert (dataset.name, dataset.split) == (tmp_path.name, "test")
    assert [(document.id, document.page_content) for document in dataset.documents] == [
        ("d1", "Title Text with\u2028a separator and 日本語."),
        ("d2", "No title."),
        ("3", "A number as id."),
        ("d4", ""),
    ]
    assert [document.metadata for document in dataset.documents] == [{"title": "Title"}, *[{"title": ""}] * 3]
    assert dataset.queries == {"q1": "one?", "2": "two?"}
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "2": {"3": 1}}


def test_a_plain_file_goes_before_a_packed_one(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "queries.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "q1", "text": "stale"}\n'))
    assert load_dataset(folder).queries["q1"] == "one?"


def test_the_split_names_the_judgements(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "qrels/dev.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td4\t1\n")
    assert load_dataset(folder, "dev").queries == {"q3": "not judged"}


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(InputError, match=f"cannot read {re.escape(str(folder / missing))}: No such file"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("corpus", '{"_id": "d1", "text": "ok"}\n{"_id"\n', r"corpus\.jsonl, line 2: "),
        ("corpus", '{"_id": "d1"}\n', r"corpus\.jsonl: .*_id and text"),
        ("queries", "[1, 2]\n", r"queries\.jsonl: .*_id and text"),
        ("corpus", '{"_id": "d1", "text": null}\n', r"corpus\.jsonl: .*text, a string"),
        ("queries", '{"_id": "q1", "text": 5}\n', r"queries\.jsonl: .*text, a string"),
        ("qrels", "q1\td1\t1\nq1\td2\t1\n", r"test\.tsv, line 2: must hold query-id, corpus-id and score"),
        ("qrels", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\n", r"test\.tsv, line 3: must hold"),
        ("qrels", "query-id\tcorpus-id\tscore\nq1\td1\tgood\n", r"test\.tsv, line 2: must hold"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, part: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(write(tmp_path, **{part: content}))


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "queries.jsonl.gz", "qrels/test.tsv.gz"])
@pytest.mark.parametrize(
    "damaged", [lambda data: data[:-9], lambda data: data[:12] + b"\xff" * 9, lambda data: gzip.compress(b'{"text": "\xe9"}')]
)
def test_a_damaged_packed_file_is_named(tmp_path: Path, name: str, damaged: Any) -> None:
    """Cut off, overwritten, and not in UTF-8."""
    file = write(tmp_path, packed=True) / name
    file.write_bytes(damaged(file.read_bytes()))
    with pytest.raises(InputError, match=f"^dataset: cannot read {re.escape(str(file))}: [^\n]+$"):
        load_dataset(tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path)
    expected = load_dataset(folder)
    for file in folder.rglob("*.*"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_dataset(folder) == expected


def test_records_of_any_kind_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"b": [2]}', "utf-8")
    assert list(read_jsonl(path)) == [{"a": 1}, {"b": [2]}]


@pytest.mark.parametrize(("split", "claims", "judgements"), [("test", 300, 339), ("train", 809, 919)])
def test_scifact_has_its_published_size(data: Path, split: str, claims: int, judgements: int) -> None:
    dataset = load_dataset(data / "scifact", split)
    assert len(dataset.documents) == 5183
    assert len({document.id for document in dataset.documents}) == 5183
    assert len(dataset.queries) == len(dataset.qrels) == claims
    assert sum(map(len, dataset.qrels.values())) == judgements
    known = {document.id for document in dataset.documents}
    assert all(judged.keys() <= known for judged in dataset.qrels.values())
