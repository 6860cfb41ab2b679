"""Examples: what can be one, and that files give back what was written."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit import InputError
from ragkit.training.examples import Example, read_examples, split_sentences, write_examples

PLAIN: dict[str, Any] = {
    "id": "e1",
    "group": "q1",
    "question": "Why?",
    "title": "T",
    "sentences": ("One. ", "Two 日本語\u2028😀."),
    "gold": (1,),
    "relevant": True,
    "teacher": 0.25,
    "source": "made up",
}
ROW = PLAIN | {"sentences": list(PLAIN["sentences"]), "gold": [1]}


def example(**changed: Any) -> Example:
    return Example(**PLAIN | changed)


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_files_give_back_what_was_written(tmp_path: Path, name: str) -> None:
    examples = [
        example(),
        example(id="e2", gold=(), relevant=False, teacher=None),
        example(id="e3", gold=None, title="", source=""),
        example(id="e4", gold=None, relevant=False, teacher=-3.0),
    ]
    write_examples(tmp_path / name, examples)
    assert read_examples(tmp_path / name) == examples
    assert read_examples(str(tmp_path / "a.jsonl")) == examples
    before = (tmp_path / name).read_bytes()
    write_examples(tmp_path / name, iter(examples))
    assert (tmp_path / name).read_bytes() == before
    text = (gzip.decompress(before) if name.endswith(".gz") else before).decode()
    assert text.count("\n") == 4
    assert "日本語" in text


def test_title_teacher_and_source_may_be_missing_and_other_fields_are_ignored(tmp_path: Path) -> None:
    row = {name: ROW[name] for name in ("id", "group", "question", "sentences", "gold", "relevant")} | {"answer": "x"}
    assert read_examples(write(tmp_path, "", row, "  ")) == [example(title="", teacher=None, source="")]


def test_a_passage_is_its_sentences() -> None:
    assert example().passage == "One. Two 日本語\u2028😀."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": " "}, "id: must not be blank"),
        ({"group": ""}, "group: must not be blank"),
        ({"question": "\n"}, "question: must not be blank"),
        ({"sentences": (), "gold": ()}, "sentences: a passage has at least one"),
        ({"sentences": ("a", " ")}, "sentences: number 1 is blank"),
        ({"gold": (2,)}, "gold: 2 is none of the 2 sentences, which count from 0"),
        ({"gold": (-1,)}, "gold: -1 is none"),
        ({"gold": (1, 0)}, r"gold: \[1, 0\] must be ascending"),
        ({"gold": (1, 1)}, "ascending, each sentence once"),
        ({"relevant": False}, r"relevant: False contradicts gold \[1\]"),
        ({"gold": ()}, r"relevant: True contradicts gold \[\]; gold is null where"),
        ({"teacher": math.nan}, "teacher: nan is no finite number"),
        ({"teacher": math.inf}, "teacher: inf is no finite number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        example(**changed)
    path = write(tmp_path, ROW, ROW | {"id": "e2"} | changed)
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 2: .*{message}") as error:
        read_examples(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({name: ROW[name] for name in ROW if name != "gold"}, "gold: Field required"),
        (ROW | {"gold": "1"}, "gold: "),
        (ROW | {"gold": [True]}, r"gold\.0: "),
        (ROW | {"gold": [1.0]}, r"gold\.0: "),
        (ROW | {"sentences": "One."}, "sentences: "),
        (ROW | {"sentences": ["One.", None]}, r"sentences\.1: "),
        (ROW | {"relevant": "yes"}, "relevant: "),
        (ROW | {"teacher": "0.5"}, "teacher: "),
        (ROW | {"id": 7}, "id: "),
        ([], "should be an object"),
        ('{"id": "e1", ', "Invalid JSON: .* at column"),
        ('{"id": "\\ud83d"}', "Invalid JSON: "),
        (ROW, "id: 'e1' occurs a second time"),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 3: .*{message}") as error:
        read_examples(write(tmp_path, ROW, "", row))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl: No such file"):
        read_examples(tmp_path / "none.jsonl")
    whole = gzip.compress(json.dumps(ROW).encode() * 50)
    for name, data in [("cut.jsonl.gz", whole[:-12]), ("no.jsonl.gz", b"plain"), ("bad.jsonl.gz", whole[:20] + b"x" * 30)]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"cannot read .*{name}: "):
            read_examples(tmp_path / name)


def test_a_text_is_cut_behind_the_white_space_of_each_sentence() -> None:
    text = "\n# One\n\nFirst here.  Second there!\n\n- item a\n- item b \n"
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert [sentence.strip() for sentence in sentences] == ["# One", "First here.", "Second there!", "- item a\n- item b"]
    assert split_sentences("一つ目。二つ目。", "ja") == ("一つ目。", "二つ目。")
    assert split_sentences(" \n") == ()


@given(st.text(max_size=200))
def test_any_text_is_cut_into_sentences_that_are_not_blank(text: str) -> None:
    sentences = split_sentences(text)
    assert all(sentence.strip() for sentence in sentences)
    assert "".join(sentences) == (text if sentences else "")
