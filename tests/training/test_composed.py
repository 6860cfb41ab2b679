"""Questions made of two: what is joined, what is not, and that nothing but the question changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragkit.training.composed import Answered, composed
from ragkit.training.examples import Example
from ragkit.training.sources import read_composed


def answered(id: str, question: str, answer: str, *sentences: str, gold: int = 0) -> Answered:
    example = Example(id=id, group=id, question=question, sentences=sentences, gold=(gold,), relevant=True, title=f"T{id}")
    return Answered(example, answer)


MVP = answered(
    "a", "Who was the best player of the final?", "Peyton Manning", "A final. ", "The best was Peyton Manning.", gold=1
)
RETIRED = answered("b", "When did Peyton Manning retire?", "2016", "He left in 2016.")


def test_two_questions_become_one_that_needs_both_passages() -> None:
    first, second = composed([MVP, RETIRED])
    assert first.question == second.question == "When did the one who was the best player of the final retire?"
    assert first.group == second.group
    assert first.id != second.id
    for made, source in ((first, MVP.example), (second, RETIRED.example)):
        assert (made.sentences, made.gold, made.relevant, made.title) == (source.sentences, source.gold, True, source.title)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Which player won the final?", "When did the player that won the final retire?"),
        ("What old man was in the final?", "When did the old man that was in the final retire?"),
        ("Who won it in 2015? ", "When did the one who won it in 2015 retire?"),
    ],
)
def test_a_question_is_turned_into_a_description(asked: str, expected: str) -> None:
    first = answered("a", asked, "Peyton Manning", "Peyton Manning won.")
    assert {example.question for example in composed([first, RETIRED])} == {expected}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # would take another word order
        (answered("a", "Who did Denver hire?", "Peyton Manning", "They hired him."), RETIRED),
        (answered("a", "How many are there?", "Peyton Manning", "One."), RETIRED),
        # the name is a part of another
        (MVP, answered("b", "When did the Peyton Manning Stadium open?", "1999", "It opened in 1999.")),
        (MVP, answered("b", "When did Saint Peyton Manning retire?", "2016", "He left in 2016.")),
        (MVP, answered("b", "When was pre-Peyton Manning?", "2016", "He left in 2016.")),
        # one passage would do
        (MVP, answered("b", "When did Peyton Manning retire?", "2016", "A final. ", "The best was Peyton Manning.")),
        (answered("a", "Who was best?", "Peyton Manning", "Peyton Manning left in 2016."), RETIRED),
        # no name, or too short a one
        (answered("a", "Who was best?", "he", "It was he."), answered("b", "When did he retire?", "2016", "In 2016.")),
    ],
)
def test_what_does_not_join(first: Answered, second: Answered) -> None:
    assert composed([first, second]) == []


def test_askers_take_turns_and_a_name_is_used_so_often_only() -> None:
    askers = [answered(f"a{n}", f"Who was number {n}?", "Peyton Manning", f"Number {n}.") for n in range(2)]
    seconds = [answered(f"b{n}", f"Where did Peyton Manning eat in {n}?", f"place {n}", f"At place {n}.") for n in range(5)]
    made = composed([*askers, *seconds], per_name=4)
    assert [example.question for example in made[::2]] == [
        f"Where did the one who was number {n % 2} eat in {n}?" for n in range(4)
    ]
    assert composed([*askers, *seconds], per_name=4) == made
    assert composed([]) == []


def test_a_file_is_read(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "Who won it?", "context": "Alan Shearer won.", "answer": "Alan Shearer", "answer_start": 0},
        {"id": "b", "question": "When was Alan Shearer born?", "context": "In 1970.", "answer": "1970", "answer_start": 3},
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.question for one in read_composed(tmp_path / "f.jsonl")] == ["When was the one who won it born?"] * 2
