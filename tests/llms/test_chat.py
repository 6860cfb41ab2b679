"""Chat models without a server, and what becomes of things that are none."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.language_models.fake_chat_models import FakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from ragkit.errors import InputError, RagkitError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import LLM, Completion, Cost, LabelScores, ScoresText
from ragkit.llms.chat import ChatLLM
from ragkit.llms.labels import first_tokens, from_tokens, named

PROMPT = [HumanMessage("which?")]


def test_fake_models_generate_and_score() -> None:
    llm = ChatLLM(FakeListChatModel(responses=["one", "two"]))
    assert llm.generate([PROMPT, PROMPT]) == [Completion("one", Cost()), Completion("two", Cost())]
    llm = ChatLLM(FakeListChatModel(responses=["no matter", "B"]))
    assert llm.score_labels([PROMPT], [["A", "B"]]) == [LabelScores((-math.inf, 0.0), Cost(2), parsed=True)]
    assert llm.structured(dict) is None


def test_usage_is_what_the_message_says() -> None:
    usage: Any = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    answers = iter([AIMessage("hello", usage_metadata=usage), AIMessage([{"type": "text", "text": "in parts"}])])
    llm = ChatLLM(GenericFakeChatModel(messages=answers), max_concurrency=1)
    assert llm.generate([PROMPT, PROMPT]) == [Completion("hello", Cost(1, 5, 3)), Completion("in parts", Cost())]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_answer_that_names_no_label_is_an_error(asynchronous: bool) -> None:
    llm = ChatLLM(FakeListChatModel(responses=["A or B"]), top_logprobs=None)
    found = await llm.ascore_labels([PROMPT], [["A", "B"]]) if asynchronous else llm.score_labels([PROMPT], [["A", "B"]])
    assert isinstance(found[0], RagkitError)
    assert str(found[0]) == "the answer names none, or more than one, of the labels ['A', 'B']: 'A or B'"


def test_nothing_is_asked_for_no_prompts() -> None:
    llm = ChatLLM(FakeListChatModel(responses=[]))
    assert llm.generate([]) == []
    assert llm.score_labels([], []) == []


def test_one_llm_serves_several_event_loops() -> None:
    llm = ChatLLM(FakeListChatModel(responses=["x"]), max_concurrency=1)
    for _ in range(2):
        assert len(asyncio.run(llm.agenerate([PROMPT] * 3))) == 3


def test_as_llm() -> None:
    model = FakeListChatModel(responses=["x"])
    llm = as_llm(model)
    assert isinstance(llm, ChatLLM)
    assert isinstance(llm, LLM)
    assert not isinstance(llm, ScoresText)
    assert as_llm(llm) is llm
    assert isinstance(as_llm(model.with_retry()), ChatLLM)
    for wrong in ("gpt-4", None, 3):
        with pytest.raises(InputError, match="llm: pass a LangChain chat model, or LocalLLM"):
            as_llm(wrong)


def test_what_gives_no_message_is_an_error_in_its_place() -> None:
    (found,) = ChatLLM(RunnableLambda(lambda _: 3)).generate([PROMPT])
    assert str(found) == "llm: the model answered with int in place of a message"
    assert ChatLLM(RunnableLambda(lambda _: "text")).generate([PROMPT])[0].text == "text"


def test_structured_answers_are_json_and_others_the_text_they_are() -> None:
    fits = {"raw": AIMessage("..."), "parsed": {"order": [1]}, "parsing_error": None}
    raw = {"raw": AIMessage("[2] > [1]"), "parsed": None, "parsing_error": ValueError()}
    answers = iter([fits, raw])
    found = ChatLLM(RunnableLambda(lambda _: next(answers)), max_concurrency=1).generate([PROMPT] * 2)
    assert [one.text for one in found] == ['{"order": [1]}', "[2] > [1]"]


def test_settings_are_checked() -> None:
    model = FakeListChatModel(responses=["x"])
    with pytest.raises(InputError, match="max_concurrency: at least 1, not 0"):
        ChatLLM(model, 0)
    with pytest.raises(InputError, match="top_logprobs: at least 1"):
        ChatLLM(model, top_logprobs=0)
    with pytest.raises(InputError, match="model: a LangChain chat model is needed, not str"):
        ChatLLM("gpt-4")  # type: ignore[arg-type]


def test_identity_needs_parameters() -> None:
    assert ChatLLM(FakeListChatModel(responses=["x"])).identity != ChatLLM(FakeListChatModel(responses=["y"])).identity
    for model in (GenericFakeChatModel(messages=iter([])), RunnableLambda(lambda _: "x")):
        with pytest.raises(InputError, match=r"name: .* pass a name"):
            _ = ChatLLM(model).identity
    assert ChatLLM(FakeChatModel()).identity


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("B", ["A", "B"], 1),
        (" **b**.", ["A", "B"], 1),
        ("[2]", ["1", "2", "12"], 1),
        ("12", ["1", "2", "12"], 2),
        ("<think>A or B? A.</think>\nB", ["A", "B"], 1),
        ("The best is B.", ["A", "B"], 1),
        ("A passage about bees: B", ["A", "B"], None),
        ("Yes, there is no doubt", ["yes", "no"], 0),
        ("yes", ["Yes", "no"], 0),
        ("a", ["a", "A"], 0),
        ("", ["A", "B"], None),
        ("nothing of the kind", ["A", "B"], None),
        ("A, then B", ["A", "B"], 0),
        ("non", ["no", "yes"], None),
    ],
)
def test_the_label_that_an_answer_names(text: str, labels: list[str], expected: int | None) -> None:
    assert named(text, labels) == expected


def test_tokens_that_spell_a_label_add_up() -> None:
    half = math.log(0.5)
    quarter = math.log(0.25)
    assert from_tokens([("A", half), (" a", quarter), ("B", quarter)], ["A", "B", "C"]) == pytest.approx(
        (math.log(0.75), quarter, -math.inf)
    )
    assert from_tokens([("A", half), ("a", quarter)], ["A", "a"]) == (half, quarter)
    assert from_tokens([("A", -math.inf)], ["A"]) == (-math.inf,)


def test_first_tokens_of_answers_without_any() -> None:
    for metadata in ({}, {"logprobs": None}, {"logprobs": {"content": []}}, {"logprobs": {"content": None}}):
        assert first_tokens(metadata) is None
    drawn = {"token": "x", "logprob": -9.0, "top_logprobs": [{"token": "y", "logprob": -0.1}]}
    assert first_tokens({"logprobs": {"content": [drawn]}}) == [("x", -9.0), ("y", -0.1)]
