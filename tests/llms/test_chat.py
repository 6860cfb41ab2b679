"""Chat models without a server, and what becomes of things that are none."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel, GenericFakeChatModel
from langchain_core.language_models.fake_chat_models import FakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from ragkit.errors import InputError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import LLM, Completion, Cost, DeadlineError, LabelScores, RequestError, ScoresText
from ragkit.llms.chat import ChatLLM
from ragkit.llms.labels import first_tokens, from_tokens

PROMPT = [HumanMessage("which?")]


def test_fake_models_generate_and_score() -> None:
    llm = ChatLLM(FakeListChatModel(responses=["one", "two"]), 1)
    assert llm.generate([PROMPT, PROMPT]) == [Completion("one", Cost()), Completion("two", Cost())]
    llm = ChatLLM(FakeListChatModel(responses=["no matter", "B"]))
    assert llm.score_labels([PROMPT], [["A", "B"]]) == [Completion("B", Cost(2))]


def test_usage_is_what_the_message_says() -> None:
    usage: Any = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    answers = iter([AIMessage("hello", usage_metadata=usage), AIMessage([{"type": "text", "text": "in parts"}])])
    llm = ChatLLM(GenericFakeChatModel(messages=answers), max_concurrency=1)
    assert llm.generate([PROMPT, PROMPT]) == [Completion("hello", Cost(1, 5, 3)), Completion("in parts", Cost())]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_without_probabilities_the_text_comes_back_as_it_is(asynchronous: bool) -> None:
    llm = ChatLLM(FakeListChatModel(responses=["A or B"]), top_logprobs=None)
    found = await llm.ascore_labels([PROMPT], [["A", "B"]]) if asynchronous else llm.score_labels([PROMPT], [["A", "B"]])
    assert found == [Completion("A or B", Cost())]


class Provider(BaseChatModel):
    """Answers with `say`, told whether it is asked for log-probabilities; `asked` keeps that, too."""

    say: Callable[[bool], Any]
    asked: list[bool] = []

    @property
    def _llm_type(self) -> str:
        return "provider"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.asked.append("logprobs" in kwargs)
        answer = self.say("logprobs" in kwargs)
        if isinstance(answer, Exception):
            raise answer
        said = answer if "logprobs" in kwargs else AIMessage(answer.content, usage_metadata=answer.usage_metadata)
        return ChatResult(generations=[ChatGeneration(message=said)])


def spelled(label: str) -> AIMessage:
    entry = {"token": label, "logprob": -0.5}
    usage: Any = {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}
    return AIMessage(
        label, response_metadata={"logprobs": {"content": [{**entry, "top_logprobs": [entry]}]}}, usage_metadata=usage
    )


async def test_many_questions_at_once_find_out_with_one_request_that_there_are_no_probabilities() -> None:
    model = Provider(say=lambda scoring: AIMessage("B"))
    llm = ChatLLM(model)
    assert llm.probes == 1
    found = await asyncio.gather(*(llm.ascore_labels([PROMPT] * 3, [["A", "B"]] * 3) for _ in range(4)))
    assert [one.text for answers in found for one in answers] == ["B"] * 12
    assert (model.asked.count(True), len(model.asked), llm.probes) == (1, 13, 0)


def test_other_errors_say_nothing_about_probabilities(caplog: pytest.LogCaptureFixture) -> None:
    fails = [True]
    model = Provider(say=lambda scoring: ValueError("no JSON") if scoring and fails[0] else spelled("A"))
    llm = ChatLLM(model)
    first, second = llm.score_labels([PROMPT] * 2, [["A", "B"]] * 2)
    assert (str(first), second, llm.probes) == ("no JSON", Completion("A", Cost(1, 5, 1)), 1)
    fails[0] = False
    assert llm.score_labels([PROMPT], [["A", "B"]]) == [LabelScores((-0.5, -math.inf), Cost(1, 5, 1))]
    assert llm.probes == 0
    assert "log-probabilities" not in caplog.text


def test_a_refusal_is_known_by_the_parameter_it_names_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    refusal = TypeError("create() got an unexpected keyword argument 'logprobs'")
    llm = ChatLLM(Provider(say=lambda scoring: refusal if scoring else spelled("B")))
    for _ in range(2):
        assert [one.text for one in llm.score_labels([PROMPT] * 2, [["A", "B"]] * 2)] == ["B", "B"]  # type: ignore[union-attr]
    assert caplog.text.count("without log-probabilities") == 1


def test_what_was_spent_on_a_request_that_fails_in_the_end_is_told() -> None:
    llm = ChatLLM(Provider(say=lambda scoring: spelled("?") if scoring else RuntimeError("boom")))
    (found,) = llm.score_labels([PROMPT], [["A", "B"]])
    assert isinstance(found, RequestError)
    assert str(found) == "RuntimeError: boom"
    assert found.cost == Cost(2)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_at_the_deadline_there_are_the_answers_that_came(asynchronous: bool) -> None:
    """Three requests at a time: two hang, the others go through one after the other until one more hangs; the last waits."""
    released, begun = threading.Event(), []

    def reply(messages: Any) -> str:
        begun.append(messages[0].content)
        if messages[0].content.startswith("hang"):
            released.wait(60)
        return "done"

    async def areply(messages: Any) -> str:
        begun.append(messages[0].content)
        await asyncio.sleep(60 if messages[0].content.startswith("hang") else 0)
        return "done"

    llm = ChatLLM(RunnableLambda(reply, areply), 3)
    texts = ["hang 1", "hang 2", "a", "b", "hang 3", "waits"]
    prompts, until = [[HumanMessage(text)] for text in texts], time.monotonic() + 2
    found = await llm.agenerate(prompts, None, until) if asynchronous else llm.generate(prompts, None, until)
    assert time.monotonic() < until + 20
    released.set()
    assert [one.text if isinstance(one, Completion) else None for one in found] == [None, None, "done", "done", None, None]
    late = [one for one in found if isinstance(one, DeadlineError)]
    assert [one.cost.calls for one in late] == [1, 1, 1, 0]
    await asyncio.sleep(0.2)
    assert sorted(begun) == ["a", "b", "hang 1", "hang 2", "hang 3"]


HANGS = """
import threading, time
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from ragkit.llms.chat import ChatLLM
llm = ChatLLM(RunnableLambda(lambda _: threading.Event().wait()), 2)
print([type(one).__name__ for one in llm.generate([[HumanMessage("x")]] * 5, None, time.monotonic() + 0.2)])
"""


def test_a_process_can_end_while_a_model_hangs() -> None:
    run = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout.strip() == str(["DeadlineError"] * 5)


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
    model = FakeListChatModel(responses=["x"])
    assert len({ChatLLM(model, top_logprobs=top).identity for top in (None, 5, 20)}) == 3
    for model in (GenericFakeChatModel(messages=iter([])), RunnableLambda(lambda _: "x")):
        with pytest.raises(InputError, match=r"name: .* pass a name"):
            _ = ChatLLM(model).identity
    assert ChatLLM(FakeChatModel()).identity


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
