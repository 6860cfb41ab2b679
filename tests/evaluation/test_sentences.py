"""Reading sentence-labelled datasets."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragkit import InputError, provenance
from ragkit.evaluation.sentences import load_sentences

CORPUS = [{"_id": "p1", "title": "Fruit", "text": "x"}, {"_id": "p2", "text": "x"}, {"_id": 3, "title": None, "text": "x"}]
QUERIES = [{"_id": "q1", "text": "one?", "setting": "hard"}, {"_id": 2, "text": "two?"}]
ROWS: list[dict[str, Any]] = [
    {"query_id": "q1", "corpus_id": "p1", "sentences": ["Apples. ", "\n\n", " Pears.\u3000", "Figs."], "gold": [3, 2]},
    {"query_id": 2, "corpus_id": "p1", "sentences": ["Apples. ", "Pears."], "gold": []},
    {"query_id": "q1", "corpus_id": 3, "sentences": ["日本語。", "次の文。"], "gold": [0], "unambiguous": True},
]


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(folder: Path, rows: Any = ROWS, *, split: str = "test", packed: bool = False, **changed: str) -> Path:
    texts = {
        f"sentences.{split}": rows if isinstance(rows, str) else lines(rows),
        "corpus": lines(CORPUS),
        "queries": lines(QUERIES),
    }
    for name, text in (texts | changed).items():
        data = text.encode()
        (folder / f"{name}.jsonl{'.gz' * packed}").write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_passages_have_the_datasets_own_sentences(tmp_path: Path, packed: bool) -> None:
    dataset = load_sentences(str(write(tmp_path, packed=packed)))
    assert (dataset.name, dataset.split, dataset.left_out) == (tmp_path.name, "test", 0)
    assert [(question.id, question.text) for question in dataset.questions] == [("q1", "one?"), ("2", "two?")]
    assert dataset.questions[0].record["setting"] == "hard"
    first, second = dataset.questions[0].passages
    assert [passage.document.id for passage in dataset.passages] == ["q1 p1", "q1 3", "2 p1"]
    assert first.document.page_content == "Apples. \n\n Pears.\u3000Figs."
    units = provenance(first.document).units or ()
    assert [first.document.page_content[unit.start : unit.end] for unit in units] == ["Apples.", "Pears.", "Figs."]
    assert first.gold == (1, 2)
    assert (second.document.page_content, second.gold) == ("日本語。次の文。", (0,))
    titles = [{key: value for key, value in p.document.metadata.items() if key != "ragkit"} for p in dataset.passages]
    assert titles == [{"title": "Fruit"}, {}, {"title": "Fruit"}]


def test_ambiguous_and_repeated_rows_are_left_out(tmp_path: Path) -> None:
    ambiguous = {"query_id": 2, "corpus_id": "p2", "sentences": ["No."], "gold": [0], "unambiguous": False}
    dataset = load_sentences(write(tmp_path, [*ROWS, ambiguous, ROWS[0]]))
    assert dataset.left_out == 1
    assert [passage.document.id for passage in dataset.passages] == ["q1 p1", "q1 3", "2 p1"]


def test_the_first_questions_come_with_all_their_passages(tmp_path: Path) -> None:
    dataset = load_sentences(write(tmp_path), questions=1)
    assert [passage.document.id for passage in dataset.passages] == ["q1 p1", "q1 3"]


def test_the_split_is_test_then_dev_then_the_first(tmp_path: Path) -> None:
    write(tmp_path, split="train")
    assert load_sentences(tmp_path).split == "train"
    write(tmp_path, split="dev")
    assert load_sentences(tmp_path).split == "dev"
    write(tmp_path, split="test", packed=True)
    assert load_sentences(tmp_path).split == "test"
    assert load_sentences(tmp_path, "train").split == "train"
    with pytest.raises(InputError, match=r"split: 'valid' is none .*; use one of dev, test, train"):
        load_sentences(tmp_path, "valid")


@pytest.mark.parametrize("missing", ["corpus", "queries"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    path = write(tmp_path) / f"{missing}.jsonl"
    path.unlink()
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_sentences(tmp_path)


def test_a_folder_without_sentences_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path} has no sentences.<split>.jsonl")):
        load_sentences(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": [2]}, "record 2: gold must be a list of positions in sentences, from 0 to 1"),
        ({"gold": [-1]}, "record 2: gold must be"),
        ({"gold": [True]}, "record 2: gold must be"),
        ({"gold": 1}, "record 2: gold must be"),
        ({"sentences": "Apples."}, "record 2: sentences must be a list of strings"),
        ({"sentences": ["a", 1]}, "record 2: sentences must be a list of strings"),
        ({"sentences": [" ", "\n"]}, "record 2: sentences hold no text"),
        ({"sentences": []}, "record 2: sentences hold no text"),
        ({"query_id": "q1"}, "record 2: question 'q1' has passage 'p1' twice, with different content"),
        ({"query_id": "q9"}, "queries.jsonl has no record with _id 'q9'"),
        ({"corpus_id": "p9"}, "corpus.jsonl has no record with _id 'p9'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path, [ROWS[0], ROWS[1] | change, ROWS[2]])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_sentences(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sentences.test", '{"query_id": 1}\n', "record 1: must be an object with corpus_id, gold, query_id, sentences"),
        ("sentences.test", "[1]\n", "record 1: must be an object"),
        ("sentences.test", "{", "line 1"),
        ("queries", '{"_id": "q1"}\n', "record 1: must be an object with _id, text"),
        ("corpus", '{"id": "p1"}\n', "record 1: must be an object with _id"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    write(tmp_path, **{name: text})
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / name}.jsonl, {message}")):
        load_sentences(tmp_path)


@pytest.mark.parametrize("rows", [[], ROWS[1:2], [ROWS[0] | {"unambiguous": False}], [ROWS[0] | {"gold": [1]}]])
def test_nothing_to_measure_is_said(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(InputError, match=r"sentences\.test\.jsonl has no gold sentence"):
        load_sentences(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("name", "split", "questions", "passages", "left_out"),
    [("squad", "test", 3648, 3648, 420), ("hotpotqa", "dev", 299, 2983, 0), ("scifact", "test", 300, 339, 0)],
)
def test_real_datasets_are_read_whole(data: Path, name: str, split: str, questions: int, passages: int, left_out: int) -> None:
    dataset = load_sentences(data / name, split)
    assert (len(dataset.questions), len(dataset.passages), dataset.left_out) == (questions, passages, left_out)
    for passage in dataset.passages:
        text, units = passage.document.page_content, provenance(passage.document).units or ()
        assert all(text[unit.start : unit.end].strip() == text[unit.start : unit.end] != "" for unit in units)
        assert all(0 <= at < len(units) for at in passage.gold)
