"""Readers of annotated data: rows, dataset folders, answer spans, supporting facts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.training.examples import Example, Passage
from ragkit.training.sources import (
    annotated,
    read_answer_strings,
    read_answers,
    read_corpus,
    read_hotpot,
    read_rows,
    read_sentences,
    read_unanswerable,
    without_blanks,
)

ROW = {"id": "r1", "question": "Who?", "title": "T", "sentences": ["A. ", "B."], "gold": [1], "source": "made up"}
ANSWERED = {"id": "a1", "question": "Who?", "title": "T", "context": "Ann came. Bob left.", "answer": "Bob", "answer_start": 10}
HOTPOT = {
    "_id": "h1",
    "question": "Which?",
    "answer": "no",
    "context": [["X", ["X one.", "X two."]], ["Y", ["Y one.", " ", " Y two."]], ["Z", [""]], ["X", ["X one.", "X two."]]],
    "supporting_facts": [["X", 1], ["Gone", 0]],
}


def write(path: Path, rows: Sequence[Any], packed: bool = False) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


def dataset(folder: Path, packed: bool = False, **changed: Any) -> Path:
    """A folder with a passage that is gold, one cited without evidence, and one that is irrelevant."""
    parts: dict[str, Any] = {
        "corpus": [
            {"_id": "d1", "title": "One", "text": "A. B.", "sentences": ["A. ", "B."]},
            {"_id": "d2", "title": None, "text": "C came. D left."},
            {"_id": 3, "title": "", "text": "E.", "sentences": ["E.", ""]},
            {"_id": "d4", "text": " "},
        ],
        "queries": [
            {"_id": "q1", "text": "Which?", "answers": ["B", "b"]},
            {"_id": "q2", "text": "Not judged?"},
            {"_id": "q3", "text": "Judged?"},
        ],
        "sentences.train": [
            {"query_id": "q1", "corpus_id": "d1", "sentences": ["A. ", "B."], "gold": [1]},
            {"query_id": "q1", "corpus_id": "d2", "sentences": ["C came. ", "D left."], "gold": []},
            {"query_id": "q1", "corpus_id": 3, "sentences": ["E.", ""], "gold": []},
            {"query_id": "q1", "corpus_id": "d1", "sentences": ["A. ", "B."], "gold": [1]},
            {"query_id": "q3", "corpus_id": "d1", "sentences": ["A. ", "B."], "gold": [0], "unambiguous": False},
        ],
        "unanswerable": [
            {"query_id": "u1", "text": "Never?", "corpus_id": "d2", "split": "train"},
            {"query_id": "u2", "text": "Ever?", "corpus_id": "d2", "split": "test"},
        ],
    }
    (folder / "qrels").mkdir(parents=True)
    judgements = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t1", "q3\td1\t1", "q1\t3\t0", ""]
    (folder / "qrels/train.tsv").write_text("\n".join(judgements))
    for name, rows in (parts | changed).items():
        write(folder / f"{name}.jsonl", rows, packed)
    return folder


def brief(examples: Sequence[Example]) -> list[tuple[str, str, tuple[int, ...] | None, bool]]:
    return [(one.id, one.group, one.gold, one.relevant) for one in examples]


def test_rows_become_examples(tmp_path: Path) -> None:
    rows = [
        ROW,
        ROW | {"id": "r2", "question": " who? ", "gold": [], "kind": "mined_negative"},
        ROW | {"id": "r3", "question": "What?", "gold": [1, 0, 1], "source": ""},
        ROW | {"id": "r4", "unambiguous": False},
    ]
    path = write(tmp_path / "mine.jsonl", rows, packed=True)
    examples = read_rows(path)
    assert brief(examples) == [("r1", "r1", (1,), True), ("r2", "r1", (), False), ("r3", "r3", (0, 1), True)]
    assert examples[0] == Example(
        id="r1", group="r1", question="Who?", title="T", sentences=("A. ", "B."), gold=(1,), relevant=True, source="made up"
    )
    assert examples[2].source == "mine"
    assert read_rows(str(path) + ".gz") == examples
    assert [one.id for one in read_rows(path, without=("mined_negative",))] == ["r1", "r3"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gold": [2]}, "gold: 2 is none of the 2 sentences"),
        ({"gold": [-1]}, "gold: -1 is none"),
        ({"sentences": []}, "sentences: a passage has at least one"),
        ({"sentences": ["", " "], "gold": []}, "sentences: a passage has at least one"),
        ({"sentences": "A."}, "sentences: "),
        ({"gold": None}, "gold: "),
        ({"question": ""}, "question: must not be blank"),
        ({"question": None}, "question: "),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "rows.jsonl", [ROW, ROW | changed])
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 2: .*{message}") as error:
        read_rows(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_dataset_folder_is_read_with_its_judgements(tmp_path: Path, packed: bool) -> None:
    folder = dataset(tmp_path / "made", packed)
    examples = read_sentences(folder, "train")
    assert brief(examples) == [("q1/d1", "q1", (1,), True), ("q1/d2", "q1", None, True), ("q1/3", "q1", (), False)]
    assert [(one.question, one.title, one.passage, one.source) for one in examples] == [
        ("Which?", "One", "A. B.", "made"),
        ("Which?", "", "C came. D left.", "made"),
        ("Which?", "", "E.", "made"),
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query_id": "q2"}, r"query_id: 'q2' is not among the queries with judgements in qrels/train\.tsv"),
        ({"corpus_id": "d9"}, "corpus_id: 'd9' is not in the corpus"),
        ({"gold": [0]}, "corpus_id: 'd1' has two different rows for query 'q1'"),
        ({"corpus_id": None}, "corpus_id: "),
        ({"gold": [5]}, "gold: 5 is none"),
    ],
)
def test_a_malformed_row_of_a_folder_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    row = {"query_id": "q1", "corpus_id": "d1", "sentences": ["A. ", "B."], "gold": [1]}
    folder = dataset(tmp_path / "made", **{"sentences.train": [row, row | changed]})
    with pytest.raises(InputError, match=rf"sentences\.train\.jsonl, line 2: .*{message}"):
        read_sentences(folder, "train")


def test_questions_that_their_passage_does_not_answer(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "made")
    [example] = read_unanswerable(folder)
    assert brief([example]) == [("u1/d2", "u1", (), False)]
    assert (example.question, example.title, example.sentences) == ("Never?", "", ("C came. ", "D left."))
    assert [one.group for one in read_unanswerable(folder, "test")] == ["u2"]
    write(folder / "unanswerable.jsonl", [{"query_id": "u1", "text": "Never?", "corpus_id": "d9", "split": "train"}])
    with pytest.raises(InputError, match=r"unanswerable\.jsonl, line 1: corpus_id: 'd9' is not in the corpus"):
        read_unanswerable(folder)


def test_a_corpus_is_a_pool_of_passages_and_queries_know_their_answers(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "made")
    assert read_corpus(folder) == {
        "d1": Passage("One", ("A. ", "B.")),
        "d2": Passage("", ("C came. ", "D left.")),
        "3": Passage("", ("E.",)),
    }
    assert read_answer_strings(folder) == {"q1": ("B", "b")}


def test_gold_is_where_the_answer_stands(tmp_path: Path) -> None:
    rows = [
        ANSWERED,
        ANSWERED | {"id": "a2", "answer": "came. Bob", "answer_start": 4},
        ANSWERED | {"id": "a3", "answer": "came. ", "answer_start": 4},
        ANSWERED | {"id": "a4", "unambiguous": False},
    ]
    examples = read_answers(write(tmp_path / "span.jsonl", rows))
    assert brief(examples) == [("a1", "a1", (1,), True), ("a2", "a2", (0, 1), True), ("a3", "a3", (0,), True)]
    assert examples[0].sentences == ("Ann came. ", "Bob left.")
    assert examples[0].source == "span"


def test_an_answer_in_a_language_without_spaces(tmp_path: Path) -> None:
    row = ANSWERED | {"context": "😀一つ目。二つ目。", "answer": "二つ目", "answer_start": 5}
    [example] = read_answers(write(tmp_path / "ja.jsonl", [row]), "ja")
    assert (example.sentences, example.gold) == (("😀一つ目。", "二つ目。"), (1,))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer_start": 9}, "answer_start: 9 is not where the answer 'Bob' stands"),
        ({"answer": "", "answer_start": 0}, "answer_start: 0 is not where"),
        ({"answer": "t.", "answer_start": -2}, "answer_start: -2 is not where"),
        ({"answer_start": None}, "answer_start: "),
        ({"context": None}, "context: "),
    ],
)
def test_an_answer_that_is_not_there_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "span.jsonl", [ANSWERED, ANSWERED | changed])
    with pytest.raises(InputError, match=rf"span\.jsonl, line 2: {message}"):
        read_answers(path)


def test_supporting_facts_name_passages_by_title(tmp_path: Path) -> None:
    behind = HOTPOT | {"_id": "h2", "supporting_facts": [["Y", 0], ["Y", 7]]}
    blank = HOTPOT | {"_id": "h3", "supporting_facts": [["Y", 1], ["X", 0]]}
    last = HOTPOT | {"_id": "h4", "supporting_facts": [["Y", 2]]}
    path = tmp_path / "hotpot.json"
    path.write_text(json.dumps([HOTPOT, behind, blank, last, HOTPOT | {"_id": "h5", "unambiguous": False}]))
    examples = read_hotpot(path)
    assert brief(examples) == [
        ("h1/0", "h1", (1,), True),
        ("h1/1", "h1", (), False),
        ("h2/0", "h2", (), False),
        ("h2/1", "h2", None, True),
        ("h3/0", "h3", (0,), True),
        ("h3/1", "h3", None, True),
        ("h4/0", "h4", (), False),
        ("h4/1", "h4", (1,), True),
    ]
    assert [(one.title, one.sentences) for one in examples[:2]] == [("X", ("X one.", " X two.")), ("Y", ("Y one. ", " Y two."))]
    assert {one.source for one in examples} == {"hotpot"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps([HOTPOT, HOTPOT | {"context": [["X", "text"]]}]), r"1\.context\.0\.1: "),
        (json.dumps([HOTPOT | {"supporting_facts": None}]), r"0\.supporting_facts: "),
        (json.dumps([HOTPOT, HOTPOT | {"question": ""}]), "item 1: .*question: must not be blank"),
        (json.dumps(HOTPOT), "should be a valid array"),
        ("[", "Invalid JSON"),
    ],
)
def test_a_malformed_item_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hotpot.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"hotpot\.json.*{message}") as error:
        read_hotpot(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_rows, read_answers, read_hotpot):
        with pytest.raises(InputError, match=r"cannot read .*none\.jsonl: No such file"):
            read(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"corpus\.jsonl: No such file"):
        read_corpus(tmp_path)


def test_relevant_without_gold_means_that_gold_is_unknown() -> None:
    def known(gold: list[int] | None, relevant: bool | None) -> tuple[tuple[int, ...] | None, bool]:
        example = annotated("i", "g", "q", Passage("", ("a", "b")), gold, relevant=relevant)
        return example.gold, example.relevant

    assert known([1], None) == known([1], False) == ((1,), True)
    assert known([], None) == known([], False) == ((), False)
    assert known([], True) == known(None, True) == (None, True)


@given(st.lists(st.sampled_from(["a.", "b. ", "", " ", "\n"]), min_size=1), st.data())
def test_no_blank_sentence_remains_and_gold_moves_along(sentences: list[str], data: st.DataObject) -> None:
    gold = data.draw(st.sets(st.integers(0, len(sentences) - 1)))
    whole, moved = without_blanks(sentences, gold)
    assert "".join(whole) == ("".join(sentences) if whole else "")
    assert all(sentence.strip() for sentence in whole)
    assert [whole[at].strip() for at in moved] == [sentences[at].strip() for at in sorted(gold) if sentences[at].strip()]


@pytest.mark.parametrize(
    ("name", "rows", "with_gold", "unknown"),
    [
        ("squad", 6502 - 751, 6502 - 751, 0),
        ("hotpotqa", 994, 200, 0),
        ("2wikimultihopqa", 4973, 1178, 6),
        ("scifact", 919, 564, 355),
    ],
)
def test_real_dataset_folders(data: Path, name: str, rows: int, with_gold: int, unknown: int) -> None:
    examples = read_sentences(data / name, "train")
    assert len(examples) == len({one.id for one in examples}) == rows
    assert sum(bool(one.gold) for one in examples) == with_gold
    assert sum(one.gold is None for one in examples) == unknown


def test_real_rows_answers_and_unanswerable_questions(data: Path) -> None:
    rows = read_rows(data / "train_extra" / "tatqa.jsonl.gz")
    assert (len(rows), sum(one.relevant for one in rows)) == (685, 685)
    answers = read_answers(data / "squad" / "train.jsonl.gz")
    assert all(one.gold for one in answers)
    assert len({one.group for one in answers}) == len(answers) > 9000
    unanswerable = read_unanswerable(data / "squad")
    assert 0 < len(unanswerable) < 5945
    assert not any(one.relevant for one in unanswerable)
