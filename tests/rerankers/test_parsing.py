"""Whatever a model writes: a permutation, a label or a grade, or the reason why there is none."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.rerankers.parsing import parse_order
from ragkit.rerankers.verdicts import NO, YES, parse_label, parse_score

AB = [("A",), ("B",)]

ORDERS = [
    # chains
    ("[2] > [1] > [3]", [2, 1, 3]),
    ("[2]>[3]>[1]", [2, 3, 1]),
    ("2] > [1] > [3]", [2, 1, 3]),  # the prompt, or the model, opened the first bracket
    ("2 > [1] > [3]", [2, 1, 3]),
    ("[2] > [1] > [3", [2, 1]),  # cut off: it might have been [30]
    ("[[2]] > [[1]]", [2, 1]),
    (r"\[2\] > \[1\]", [2, 1]),
    ("【2】 ＞ 【1】", [2, 1]),
    ("[2][3][1]", [2, 3, 1]),
    ("[2] = [3] > [1]", [2, 3, 1]),
    ("[Passage 2] > [Passage 1]", [2, 1]),
    ("**[2]** > **[1]**", [2, 1]),
    # prose around them
    ("The ranking is: [2] > [3] > [1].", [2, 3, 1]),
    ("[1] is bad, [2] is good, [3] so so. Hence: [2] > [3] > [1]", [2, 3, 1]),
    ("[2] > [3] > [1]\n\n[1] comes last because of [3].", [2, 3, 1]),
    ("[3] (good) > [1] (less so) > [2] (bad)", [3, 1, 2]),
    ("The best one is [2].", [2]),
    # what is said to be the worst is not put in front
    ("Least relevant: [2]. Most relevant: [1]", [1]),
    ("Most relevant: [1]. Least relevant: [2]", [1]),
    ("Least relevant: [3]\nthen [1]\nMost relevant: [2]", [2]),
    ("[2] is the least relevant, [1] the most", [1]),
    ("[1] is irrelevant, hence: [2] > [3] > [1]", [2, 3, 1]),
    ("The least relevant is [3]; the order is: [2] > [1] > [3]", [2, 1, 3]),
    ("[3] > [1], and the least relevant is [2]", [3, 1]),
    ("[2] > [3] > [1]\n\n[1] is the least relevant.", [2, 3, 1]),
    ("From most relevant to least relevant: [2] > [1] > [3]", [2, 1, 3]),
    ("From best to worst: 2, 1, 3", [2, 1, 3]),
    ("In order of relevance (least relevant last): [3] > [1] > [2]", [3, 1, 2]),
    ("At least [2] and [1] are relevant", [2, 1]),
    ('{"least_relevant": [2], "most_relevant": [1]}', [1]),
    # lists
    ("[2, 1, 3]", [2, 1, 3]),
    ("[Passage 2, Passage 1]", [2, 1]),
    ("2, 1, 3", [2, 1, 3]),
    ("2 1 3", [2, 1, 3]),
    ("2, 1 and 3", [2, 1, 3]),
    ("2>3>1", [2, 3, 1]),
    ("2 -> 3 -> 1", [2, 3, 1]),
    ("**2** > **1**", [2, 1]),
    ("(2) > (1) > (3)", [2, 1, 3]),
    ("Ranking: 2 > 3 > 1.", [2, 3, 1]),
    ("Passage 2 > Passage 1", [2, 1]),
    ("段落2＞段落1＞段落3", [2, 1, 3]),
    ("- 2\n- 3\n- 1", [2, 3, 1]),
    ("1. [3]\n2. [1]\n3. [2]", [3, 1, 2]),
    ("1. [3] > 2. [1]", [3, 1]),
    ("1. 3\n2. 1\n3. 2", [3, 1, 2]),
    ("1. Passage 3: good\n2. Passage 1: bad", [3, 1]),
    ("Passage 3 is best, as it says so\nPassage 1 is off", [3, 1]),
    ("2", [2]),
    ("Passage 2.", [2]),
    # letters
    ("B > A > C", [2, 1, 3]),
    ("B, A and C", [2, 1, 3]),
    ("[B] > [A]", [2, 1]),
    ("Passage B > Passage A", [2, 1]),
    ("B", [2]),
    # other digits
    ("② ① ③", [2, 1, 3]),
    ("②＞①", [2, 1]),
    ("٢ > ١ > ٣", [2, 1, 3]),
    ("[２] > [１]", [2, 1]),
    # JSON
    ('{"ranking": [2, 1, 3]}', [2, 1, 3]),
    ('{"ranking": "[2] > [1]"}', [2, 1]),
    ('["B", "A"]', [2, 1]),
    ('```json\n[{"id": 2, "score": 1}, {"id": "[3]"}]\n```', [2, 3]),
    ('[{"passage": 1, "rank": 2}, {"passage": 3, "rank": 1}]', [3, 1]),
    # thoughts
    ("<think>[1] > [2]</think>[2] > [1]", [2, 1]),
    ("surely [1] > [2]</think>\n[2] > [1]", [2, 1]),
    # repeats, what does not exist, and counting from 0
    ("[2] > [2] > [7] > [1] > [2]", [2, 1]),
    ("2 > 2 > 7 > 1", [2, 1]),
    ("[0] > [2] > [1]", [1, 3, 2]),
]


@pytest.mark.parametrize(("text", "stated"), ORDERS)
def test_an_order_is_read(text: str, stated: list[int]) -> None:
    parsed = parse_order(text, 3)
    rest = [at for at in (1, 2, 3) if at not in stated]
    assert [at + 1 for at in parsed.order] == stated + rest
    assert (parsed.stated, parsed.problem) == (len(stated), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("<think>[2] > [1]", "stops within its thoughts"),
        ("I cannot rank these.", "names no passage"),
        ("我无法回答这个问题。", "names no passage"),
        ("10 passages will be listed.", "names no passage"),
        ("There are 3 of them, 20% from 2020-01-02, and 1.5 are good.", "names no passage"),
        ('{"2": 0.9, "1": 0.1}', "names no passage"),
        ("{}", "names no passage"),
        ("From least to most relevant: [3] > [1] > [2]", "names no passage but the worst"),
        ("From least to most relevant:\n1. [3]\n2. [1]\n3. [2]", "names no passage but the worst"),
        ("Ascending order of relevance: 3, 1, 2", "names no passage but the worst"),
        ("[2] is the least relevant.", "names no passage but the worst"),
        ("最不相关：[2]", "names no passage but the worst"),
        ("[7] > [9]", "names none of the 3 passages"),
    ],
)
def test_what_states_no_order_is_a_problem(text: str, problem: str) -> None:
    parsed = parse_order(text, 3)
    assert parsed.order == (0, 1, 2)
    assert parsed.stated == 0
    assert parsed.problem is not None
    assert problem in parsed.problem
    assert "\n" not in parsed.problem


@pytest.mark.parametrize("n", [0, 1, 2, 26, 200])
def test_any_number_of_passages(n: int) -> None:
    text = " > ".join(f"[{at}]" for at in range(n, 0, -1))
    assert parse_order(text, n).order == tuple(reversed(range(n)))


@given(st.text(st.sampled_from('[]{}()<>/",:;|.-=*#_ \n0123456789ABCabcé段②３٣think')) | st.text(), st.integers(0, 30))
def test_anything_at_all_parses_to_a_permutation(text: str, n: int) -> None:
    parsed = parse_order(text, n)
    assert sorted(parsed.order) == list(range(n))
    assert (parsed.stated == 0) == (parsed.problem is not None)
    parse_label(text, [YES, NO])
    parse_label(text, AB)
    grade = parse_score(text)
    assert grade is None or 0 <= grade <= 4


@pytest.mark.parametrize("text", ["[", "{", "[1", "[ ", '[{"a":', "1 ", "1. 1\n", "- ", "A ", "#", ">", " .a"])
def test_a_model_that_repeats_itself_does_not_hold_anybody_up(text: str) -> None:
    started = time.process_time()
    parse_order(text * 5_000, 20)
    parse_label(text * 5_000, [YES, NO])
    parse_score(text * 5_000)
    assert time.process_time() - started < 2


def answers_of_models(data: Path) -> list[dict[str, Any]]:
    file = data / "llm_rerank_logs" / "listwise_responses.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_real_answers(data: Path) -> None:
    rows = answers_of_models(data)
    assert len(rows) == 2844
    for row in rows:
        n, text = row["num_passages"], row["response"]
        parsed = parse_order(text, n)
        assert sorted(parsed.order) == list(range(n)), text
        stated = [at + 1 for at in parsed.order[: parsed.stated]]
        bracketed = [int(at) for at in re.findall(r"\[(\d+)\]", text)]
        if row["kind"] == "ok":
            assert stated == bracketed, text
            assert parsed.stated == n, text
        # none of those rows has any ids: refusals, talk, "20 passages are provided"
        assert (parsed.problem is not None) == (row["kind"] == "no_bracketed_ids"), text
        if parsed.problem is None:
            assert set(stated) >= {at for at in bracketed if 1 <= at <= n}, text


def test_real_answers_with_extra_text_state_what_they_say_first(data: Path) -> None:
    """The first number stands before the bracket that the prompt opened, or counts a line: "1. [3]"."""
    for row in answers_of_models(data):
        if row["kind"] != "ok_with_extra_text":
            continue
        text = re.sub(r"\d+\. (?=\[)", "", row["response"])
        numbers = dict.fromkeys(int(at) for at in re.findall(r"\d+", text) if 1 <= int(at) <= row["num_passages"])
        parsed = parse_order(row["response"], row["num_passages"])
        assert [at + 1 for at in parsed.order[: parsed.stated]] == list(numbers), row["response"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A", 0),
        ("[A]", 0),
        ("**B**", 1),
        ("Passage B", 1),
        ("I think B.", 1),
        ("A is better than B", 0),
        ("Passage A is better than passage B", 0),
        ("B\nPassage A is about something else", 1),
        ("Answer: B, because A is short", 1),
        ("<think>A</think>B", 1),
        ("A is worse than B", None),
        ("A is not better than B", None),
        ("It is worse than A.", None),
        ("Passage A is off the subject", None),
        ("Not A", None),
        ("A, B", None),
        ("A\nOn reflection: B", None),
        ("A passage about cats", None),
        ("A and B are the same", None),
        ("Both", None),
        ("", None),
    ],
)
def test_a_letter_is_read(text: str, label: int | None) -> None:
    assert parse_label(text, AB) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes", 0),
        ("no", 1),
        ("Yes. No other passage says so.", 0),
        ("<think>yes</think>No.", 1),
        ("It fits.\nAnswer: yes", 0),
        ('{"answer": "yes"}', 0),
        ("Not relevant", 1),
        ("true", 0),
        ("はい。関連しています", 0),
        ("Sí.", 0),
        ("不是", 1),
        ("Nein, der Text handelt von etwas anderem", 1),
        ("It isn't relevant.", 1),
        ("The passage is not relevant to the question.", 1),
        ("The passage is relevant to the question.", 0),
        ("Nicht relevant", 1),
        ("Not yes", None),
        ("Answer: not yes", None),
        ("Hardly relevant", None),
        ("It is not really relevant.", None),
        ("I don't think it is relevant.", None),
        ("If it were relevant, one would see it.", None),
        ("Is it relevant? I cannot say.", None),
        ("Не да", None),
        ("No - it is about something else", 1),
        ("Yes – the passage says so", 0),
        ("Yes\nOn reflection: no", None),
        ("Yes and no", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_yes_and_no_are_read_in_many_languages(text: str, label: int | None) -> None:
    assert parse_label(text, [YES, NO]) == label


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("3", 3),
        ("0", 0),
        ("2.5", 2.5),
        ("3/4", 3),
        ("**2**", 2),
        ("[4]", 4),
        ("３", 3),
        ("Score: 3", 3),
        ('{"score": 3}', 3),
        ("I give it 3 out of 4", 3),
        ("Passage 1 names 2 things. Score: 3", 3),
        ("Grade: 4\nbecause of the 3 facts", 4),
        ("<think>1</think> 2", 2),
        ("7", None),
        ("-1", None),
        ("1 or 2", None),
        ("2-3", None),
        ("2 – 3", None),
        ("none", None),
        ("", None),
    ],
)
def test_a_grade_is_read(text: str, grade: float | None) -> None:
    assert parse_score(text) == grade


@pytest.mark.parametrize("answer", ["HAYIR", "hayır", "Hayır.", "hayir", "EVET", "Sİ", "sı", "ΝΑΙ", "ÓXI", "ẞ", "ſ"])
def test_letters_without_case_of_their_own_break_nothing(answer: str) -> None:
    """A pattern without case takes the Turkish i with and without a dot for equal; case folding does not."""
    assert parse_label(answer, [YES, NO]) in (None, 0, 1)
    if answer.casefold().startswith("hay"):
        assert parse_label(answer, [YES, NO]) == 1


@pytest.mark.parametrize("tail", ["\n" * 20_000, " " * 20_000, " \n" * 20_000, "\t\r\n" * 9_000])
def test_a_model_that_goes_on_with_white_space_is_read(tail: str) -> None:
    """In reasonable time: without care some patterns would try it in all ways."""
    assert parse_order(f"[2] > [1]{tail}", 3).order == (1, 0, 2)
    assert parse_order(f"[1{tail}", 3).stated in (0, 1)
