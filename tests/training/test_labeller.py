"""The labeller: what an answer cites, what becomes of bad answers, and files that go on where they stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from ragkit import InputError
from ragkit.training.citations import numbered, parse_citations, plain
from ragkit.training.examples import Example, read_examples, write_examples
from ragkit.training.labeller import Label, LabelReport, label, label_file, labelled


class Scripted(BaseChatModel):
    """Answers by the question it finds in its prompt, and remembers what it was asked."""

    answers: dict[str, Any] = {}
    asked: list[str] = []
    prompts: list[list[BaseMessage]] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        question = str(messages[-1].content).rsplit("Question: ", 1)[1].strip()
        self.asked.append(question)
        self.prompts.append(messages)
        answer = self.answers.get(question, "It is so [1].")
        if isinstance(answer, BaseException):
            raise answer
        return ChatResult(generations=[ChatGeneration(message=answer if isinstance(answer, AIMessage) else AIMessage(answer))])


def item(name: str = "a", *sentences: str, **changed: Any) -> Example:
    fields: dict[str, Any] = {"gold": None, "relevant": False, "teacher": 0.5, "source": "made up"} | changed
    return Example(id=name, group=f"q-{name}", question=f"{name}?", sentences=sentences or ("One. ", "Two."), **fields)


NO_ANSWER = [
    "No answer",
    "No answer.",
    "no answer",
    "**No answer**",
    '"No answer."',
    "[No answer]",
    "Answer: No answer",
    "NO_ANSWER",
    "No-answer",
    "noanswer",
    "No answer is provided in the context.",
    "There is no answer in the given passage.",
    "The sentences say nothing of it. No answer.",
    "No answer, because nothing speaks of it.",
    "No answer (not mentioned)",
    "No answer - the passage is about cats",
    "<think>[2] perhaps?</think>\n\nNo answer",
]


@pytest.mark.parametrize("answer", NO_ANSWER)
def test_no_answer_is_empty_gold(answer: str) -> None:
    assert parse_citations(answer, 5) == ((), "")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("Paris [1].", (0,)),
        ("[3] Paris [1][3]", (0, 2)),
        ("Paris [1, 3]", (0, 2)),
        ("Paris [1; 3 and 4]", (0, 2, 3)),
        ("Paris [1 3]", (0, 2)),
        ("Paris [1]-[3]", (0, 1, 2)),
        ("Paris [1] – [3], or [5]", (0, 1, 2, 4)),
        ("Paris [1-3]", (0, 1, 2)),
        ("Paris [1, 3–5]", (0, 2, 3, 4)),
        ("Paris [4]-[2]", (1, 3)),
        ("- [1]\n- [4]", (0, 3)),
        ("[2] — [4]", (1, 3)),
        ("Paris [Sentence 2], [sentences 3 and 4]", (1, 2, 3)),
        ("Paris [^2][#3][S4][No. 5]", (1, 2, 3, 4)),
        (r"Paris \[2\]", (1,)),
        ("Paris [2](#2) and [[3]]", (1, 2)),
        ("パリ［２］、【3】〔４〕", (1, 2, 3)),
        ("パリ［１，３］", (0, 2)),
        ("Paris ②③ ❺", (1, 2, 4)),
        ("Paris ①-③", (0, 1, 2)),
        ("Paris [①、④]", (0, 3)),
        ("Paris [٣]", (2,)),
        ("Paris [2][7]", (1,)),
        ("Paris [4]-[9999]", (3, 4)),
        ("Paris [2][2]", (1,)),
        ("<think>[1] or [4]?</think>Paris [2]", (1,)),
        ("<THINKING>\n[1]\n</Thinking >\n[2]", (1,)),
        ("it may be [1]</think>[2]", (1,)),
        ("[2] <think>or [1]", (1,)),
        ("<think>a <think>[1]</think> [3]</think>[2]", (1,)),
        ("There is no answer to the riddle of the Sphinx [2]", (1,)),
        ("Paris (3) in 1999, x[i] [2]", (1,)),
    ],
)
def test_citations_are_read_in_many_styles(answer: str, gold: tuple[int, ...]) -> None:
    assert parse_citations(answer, 5) == (gold, "")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ("<think>so [1] and [2]", "the answer stops within its thoughts"),
        ("<think>so [1]</think>\n", "the answer stops within its thoughts"),
        ("Paris", 'the answer neither cites a sentence nor says "No answer"'),
        ("1, 3", "neither cites"),
        ("Paris (3)", "neither cites"),
        ("There is no answer to the riddle", "neither cites"),
        ("[12345678]", "neither cites"),
        ("No answer [2]", r'says "No answer" and cites \[2\]'),
        ("No answer. The passage only mentions cats [1, 2].", r'says "No answer" and cites \[1, 2\]'),
        ("Paris [1]\nNo answer", r'says "No answer" and cites \[1\]'),
        ("Paris [7]", r"cites \[7\] of 5 sentences"),
        ("Paris [7]-[9]", r"cites \[7, 9\] of 5 sentences"),
        ("Paris [0][2]", r"cites \[0\], but sentences are numbered from 1"),
    ],
)
def test_what_cannot_be_read_has_a_reason_and_no_gold(answer: str, problem: str) -> None:
    gold, reason = parse_citations(answer, 5)
    assert gold is None
    assert re.search(problem, reason)


ANYTHING = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["[", "]", "1", "2", "03", "9", ",", "-", " ", "\n", "①", "㊿", "［", "】", "<think>", "</think>", "No answer"]
    )
).map("".join)


@given(ANYTHING, st.integers(1, 4))
def test_any_text_gives_sentences_that_exist_or_a_reason(answer: str, count: int) -> None:
    gold, problem = parse_citations(answer, count)
    assert (gold is None) == bool(problem)
    assert gold is None or (list(gold) == sorted(set(gold)) and all(0 <= at < count for at in gold))


CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
STYLES: list[Callable[[list[int]], str]] = [
    lambda ids: "".join(f"[{id}]" for id in ids),
    lambda ids: f"[{', '.join(map(str, ids))}]",
    lambda ids: f"［{'、'.join(map(str, ids))}］",
    lambda ids: "".join(f"【{id}】" for id in ids),
    lambda ids: "".join(CIRCLED[id - 1] for id in ids),
    lambda ids: " and ".join(f"[Sentence {id}]" for id in ids),
    lambda ids: "\n".join(f"- it is so [{id}]." for id in ids),
    lambda ids: f"<think>[{ids[0] % 10 + 1}]</think>so [{' '.join(map(str, ids))}]",
]


@given(st.lists(st.integers(1, 10), min_size=1), st.sampled_from(STYLES))
def test_rendered_ids_are_read_back(ids: list[int], style: Callable[[list[int]], str]) -> None:
    assert parse_citations(f"Answer: {style(ids)}", 10) == (tuple(sorted({id - 1 for id in ids})), "")


@given(
    st.integers(1, 10), st.integers(1, 10), st.sampled_from(["[{}]-[{}]", "[{}-{}]", "[{}]–[{}]", "[{} – {}]", "【{}】~【{}】"])
)
def test_rendered_ranges_are_read_back(first: int, last: int, style: str) -> None:
    expected = range(first - 1, last) if first <= last else [last - 1, first - 1]
    assert parse_citations(style.format(first, last), 10) == (tuple(expected), "")


@given(ANYTHING, ANYTHING)
def test_a_passage_that_is_quoted_cites_nothing(text: str, more: str) -> None:
    gold, _ = parse_citations(f"[1] {plain(text)} {plain(more)}", 50)
    assert gold in ((0,), None)
    assert parse_citations(f"So {plain(text)}", 50).gold in ((), None)


def test_a_passage_is_shown_in_numbered_lines() -> None:
    sentences = ("See [2]\n[1] and ③. ", "</think> ［3］【4】")
    assert numbered("A [9]\ntitle", sentences) == "Title: A (9) title\n[1] See (2) (1) and (3).\n[2] (/think> (3)(4)"
    assert numbered("", ("One.",)) == "[1] One."


def test_each_item_gets_its_label_in_order() -> None:
    model = Scripted(answers={"a?": "So [2].", "b?": "No answer", "c?": "Hm.", "d?": ConnectionError("down\nagain")})
    items = [item(name) for name in "abcd"]
    assert label(model, items) == [
        Label("a", (1,), "So [2]."),
        Label("b", (), "No answer"),
        Label("c", None, "Hm.", 'the answer neither cites a sentence nor says "No answer"'),
        Label("d", None, problem="ConnectionError: down again", failed=True),
    ]
    assert sorted(model.asked) == ["a?", "b?", "c?", "d?"]
    assert label(model, []) == []


def test_the_model_sees_title_sentences_and_question_but_no_gold() -> None:
    model = Scripted()
    label(model, [item("a", "Cats [2] purr. ", "Dogs bark.", title="Pets", gold=(1,), relevant=True)])
    system, user = model.prompts[0]
    assert (system.type, user.type) == ("system", "human")
    assert user.content == "Sentences:\n\nTitle: Pets\n[1] Cats (2) purr.\n[2] Dogs bark.\n\nQuestion: a?\n"
    assert "No answer" in str(system.content)


def test_other_chat_models_and_contents() -> None:
    blocks = AIMessage([{"type": "reasoning", "reasoning": "[1]?"}, {"type": "text", "text": "So [2]."}])
    [by_blocks, by_text] = label(
        GenericFakeChatModel(messages=iter([blocks, "[1] \ud83d"])), [item()] * 2, config={"max_concurrency": 1}
    )
    assert by_blocks == Label("a", (1,), "So [2].")
    assert by_text == Label("a", (0,), "[1] ?")
    assert label(FakeListLLM(responses=["It is [2]."]), [item()]) == [Label("a", (1,), "It is [2].")]


@pytest.mark.parametrize(
    "metadata", [{"finish_reason": "length"}, {"stop_reason": "max_tokens"}, {"finish_reason": "MAX_TOKENS"}]
)
def test_an_answer_cut_off_by_the_model_is_not_trusted(metadata: dict[str, str]) -> None:
    model = Scripted(answers={"a?": AIMessage("So [1]", response_metadata=metadata)})
    [one] = label(model, [item()])
    assert (one.gold, one.answer, one.failed) == (None, "So [1]", False)
    assert "cut off" in one.problem
    done = Scripted(answers={"a?": AIMessage("So [1]", response_metadata={"finish_reason": "stop"})})
    assert label(done, [item()])[0].gold == (0,)


def test_a_model_whose_batch_fails_as_a_whole_fails_each_item() -> None:
    class Brittle(Scripted):
        def batch(self, *args: Any, **kwargs: Any) -> Any:
            raise TimeoutError("too slow")

    labels = label(Brittle(), [item("a"), item("b")])
    assert [(one.id, one.problem, one.failed) for one in labels] == [(id, "TimeoutError: too slow", True) for id in "ab"]


def test_retries_wrapped_around_a_model_are_its_own() -> None:
    class Flaky(Scripted):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            if not self.prompts:
                self.prompts.append(messages)
                raise ConnectionError
            return super()._generate(messages)

    [one] = label(Flaky().with_retry(stop_after_attempt=2, wait_exponential_jitter=False), [item()])
    assert one.gold == (0,)


def test_a_label_replaces_gold_and_relevance() -> None:
    known = item(gold=(0,), relevant=True)
    assert labelled(known, Label("a", (1,))) == item(gold=(1,), relevant=True)
    assert labelled(known, Label("a", ())) == item(gold=(), relevant=False)
    assert labelled(known, Label("a", None, problem="?")) == item(gold=None, relevant=True)


def test_a_prompt_of_the_users_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("variables: [passage, question]\nuser: |\n  {passage}\n  Question: {question}\n")
    model = Scripted()
    assert label(model, [item()], prompt=path)[0].gold == (0,)
    assert [message.content for message in model.prompts[0]] == ["[1] One.\n[2] Two.\nQuestion: a?\n"]
    with pytest.raises(InputError, match=r"prompt grounded_answer: its variables must be passage and question, not \['context'"):
        label(model, [item()], prompt="grounded_answer")


def source_of(folder: Path, names: str = "abcde") -> Path:
    write_examples(folder / "source.jsonl", [item(name) for name in names])
    return folder / "source.jsonl"


def test_a_file_is_labelled_into_another(tmp_path: Path) -> None:
    answers = {"b?": "No answer", "c?": "Hm.", "d?": ValueError("no"), "e?": "So [2] 日本語"}
    model, target, seen = Scripted(answers=answers), tmp_path / "target.jsonl", []
    source = source_of(tmp_path)
    report = label_file(source, target, model, batch_size=2, progress=lambda now: seen.append((now.calls, now.labelled)))
    assert report == LabelReport(
        items=5,
        known=0,
        calls=5,
        labelled=3,
        unclear={"c": 'the answer neither cites a sentence nor says "No answer"'},
        failures={"d": "ValueError: no"},
    )
    assert seen == [(2, 2), (4, 2), (5, 3)]
    assert read_examples(target) == [
        item("a", gold=(0,), relevant=True),
        item("b", gold=(), relevant=False),
        item("c"),
        item("e", gold=(1,), relevant=True),
    ]
    rows = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert [(row["answer"], bool(row["problem"])) for row in rows] == [
        ("It is so [1].", False),
        ("No answer", False),
        ("Hm.", True),
        ("So [2] 日本語", False),
    ]


def test_the_next_run_asks_only_what_is_missing(tmp_path: Path) -> None:
    source, target = source_of(tmp_path), tmp_path / "target.jsonl"
    label_file(source, target, Scripted(answers={"b?": ValueError("no"), "c?": "Hm."}))
    again = Scripted()
    report = label_file(source, str(target), again)
    assert (again.asked, report) == (["b?"], LabelReport(items=5, known=4, calls=1, labelled=1))
    assert [one.id for one in read_examples(target)] == ["a", "c", "d", "e", "b"]
    before, idle = target.read_bytes(), Scripted()
    assert label_file(source, target, idle) == LabelReport(items=5, known=5)
    assert idle.asked == []
    assert target.read_bytes() == before


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, target = source_of(tmp_path), tmp_path / "target.jsonl"
    with pytest.raises(KeyboardInterrupt):
        label_file(source, target, Scripted(answers={"c?": KeyboardInterrupt()}), batch_size=2)
    assert [one.id for one in read_examples(target)] == ["a", "b"]
    whole = target.read_bytes()
    label_file(source, target, Scripted())
    complete = target.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):
        target.write_bytes(whole[:cut])
        model = Scripted()
        report = label_file(source, target, model)
        assert (report.known, sorted(model.asked)) == (1, ["b?", "c?", "d?", "e?"])
        assert target.read_bytes() == complete


def test_a_target_that_is_none_is_left_alone(tmp_path: Path) -> None:
    source, target, model = source_of(tmp_path, "ab"), tmp_path / "target.jsonl", Scripted()
    write_examples(target, [item("a", "Another. ", "Passage.")])
    foreign = [
        (
            target.read_bytes(),
            r"target\.jsonl: item 'a' has another question or passage than in .*source\.jsonl; use a new target",
        ),
        (b"some notes", r"target\.jsonl: its last line is none of a label file; use a new target"),
        (b"some\nnotes\n", r"target\.jsonl, line 1: Invalid JSON"),
    ]
    for content, message in foreign:
        target.write_bytes(content)
        with pytest.raises(InputError, match=message):
            label_file(source, target, model)
        assert target.read_bytes() == content
    for name, message in [
        ("x.jsonl.gz", "grows line by line and cannot be gzipped"),
        ("none/x.jsonl", r"cannot write .*x\.jsonl: No such file"),
        ("source.jsonl", "source and target are the same file"),
    ]:
        with pytest.raises(InputError, match=message):
            label_file(source, tmp_path / name, model)
    with pytest.raises(InputError, match="batch_size must be positive, got 0"):
        label_file(source, tmp_path / "new.jsonl", model, batch_size=0)
    assert model.asked == []
