"""Chat models over HTTP, through LangChain's OpenAI client and a server of our own."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, HumanMessage

from ragkit.llms.base import Completion, Cost, LabelScores
from ragkit.llms.chat import ChatLLM

openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed: pip install 'ragkit[openai]'")


def chat(server: Any, **settings: Any) -> Any:
    return openai.ChatOpenAI(**{"base_url": server.url, "api_key": "none", "model": "test", "max_retries": 0} | settings)


def prompts(n: int) -> Sequence[list[BaseMessage]]:
    return [[HumanMessage(f"question {i}")] for i in range(n)]


def asked(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def echo(body: dict[str, Any]) -> str:
    return f"answer to {asked(body)}"


@pytest.mark.parametrize("limit", [1, 4])
def test_requests_run_at_once_up_to_the_limit(chat_server: Any, limit: int) -> None:
    with chat_server(echo, delay=0.1) as server:
        found = ChatLLM(chat(server), limit).generate(prompts(12))
    assert [one.text for one in found] == [f"answer to question {i}" for i in range(12)]
    assert {one.cost for one in found} == {Cost(1, 7, 2)}
    assert server.peak == limit


async def test_async_requests_run_at_once_up_to_the_limit(chat_server: Any) -> None:
    """The limit holds for all calls in a loop together."""
    with chat_server(echo, delay=0.1) as server:
        llm = ChatLLM(chat(server), 5)
        calls = await asyncio.gather(*(llm.agenerate(prompts(6)) for _ in range(3)))
    for found in calls:
        assert [one.text for one in found] == [f"answer to question {i}" for i in range(6)]
    assert server.peak == 5


async def test_cancelling_cancels_what_is_pending(chat_server: Any) -> None:
    with chat_server(echo, delay=30) as server:
        task = asyncio.create_task(ChatLLM(chat(server), 3).agenerate(prompts(20)))
        while server.active < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline = time.monotonic() + 20
        while server.active and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert server.dropped == 3
        assert len(server.bodies) == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_too_many_requests_are_repeated_by_the_model(chat_server: Any, asynchronous: bool) -> None:
    lock, seen = threading.Lock(), {}

    def busy_at_first(body: dict[str, Any]) -> str | int:
        with lock:
            seen[asked(body)] = seen.get(asked(body), 0) + 1
            return 429 if seen[asked(body)] <= 2 else echo(body)

    with chat_server(busy_at_first) as server:
        llm = ChatLLM(chat(server, max_retries=2))
        found = await llm.agenerate(prompts(3)) if asynchronous else llm.generate(prompts(3))
    assert [one.text for one in found] == [f"answer to question {i}" for i in range(3)]
    assert set(seen.values()) == {3}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_request_that_fails_fails_alone(chat_server: Any, asynchronous: bool) -> None:
    with chat_server(lambda body: 500 if asked(body).endswith("1") else echo(body)) as server:
        llm = ChatLLM(chat(server))
        found = await llm.agenerate(prompts(3)) if asynchronous else llm.generate(prompts(3))
    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_labels_have_the_probabilities_that_are_reported(chat_server: Any, asynchronous: bool) -> None:
    tokens = {"Yes": -0.5, " yes": -2.0, "no": -3.0, "maybe": -4.0}
    with chat_server(lambda _: ("Yes", tokens)) as server:
        llm, labels = ChatLLM(chat(server)), [["yes", "no"], ["NO", "never", " maybe"]]
        found = await llm.ascore_labels(prompts(2), labels) if asynchronous else llm.score_labels(prompts(2), labels)
    yes = math.log(math.exp(-0.5) + math.exp(-2.0))
    assert found[0] == LabelScores((pytest.approx(yes), -3.0), Cost(1, 7, 2))
    assert found[1].scores == (-3.0, -math.inf, -4.0)
    for body in server.bodies:
        assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
        assert body.get("max_tokens", body.get("max_completion_tokens")) == 1


async def test_probabilities_are_asked_for_only_where_labels_are_scored(chat_server: Any) -> None:
    with chat_server(echo) as server:
        ChatLLM(chat(server)).generate(prompts(1))
    assert "logprobs" not in server.bodies[0]
    assert "max_tokens" not in server.bodies[0]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("refused", [False, True])
async def test_without_probabilities_answers_are_written(chat_server: Any, asynchronous: bool, refused: bool) -> None:
    """Whether the provider leaves the log-probabilities out or refuses to be asked, it is asked for them once."""

    def answer(body: dict[str, Any]) -> str | tuple[int, str]:
        return (400, "logprobs is not supported") if refused and "logprobs" in body else "The best passage is B."

    with chat_server(answer) as server:
        llm, scores = ChatLLM(chat(server)), []
        for _ in range(2):
            labels = [["A", "B"]] * 2
            scores.append(await llm.ascore_labels(prompts(2), labels) if asynchronous else llm.score_labels(prompts(2), labels))
    first = Cost(2, 7, 2) if refused else Cost(2, 14, 4)
    once = Completion("The best passage is B.", Cost(1, 7, 2))
    assert scores == [[once._replace(cost=first), once], [once, once]]
    assert [("logprobs" in body) for body in server.bodies] == [True, *[False] * 4]


def test_a_failure_is_not_taken_for_a_refusal(chat_server: Any) -> None:
    with chat_server(lambda _: 500) as server:
        llm = ChatLLM(chat(server))
        assert isinstance(llm.score_labels(prompts(1), [["A", "B"]])[0], openai.chat_models.base.openai.InternalServerError)
        server.answer = lambda _: ("A", {"A": -0.25})
        assert llm.score_labels(prompts(1), [["A", "B"]])[0] == LabelScores((-0.25, -math.inf), Cost(1, 7, 2))


def test_first_tokens_that_spell_no_label_are_followed_by_a_written_answer(chat_server: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        return ("[", {"[": -0.01}) if "logprobs" in body else "[2]"

    with chat_server(answer) as server:
        llm = ChatLLM(chat(server))
        found = [llm.score_labels(prompts(1), [["1", "2"]])[0] for _ in range(2)]
    assert found == [Completion("[2]", Cost(2, 14, 4)), Completion("[2]", Cost(1, 7, 2))]
    assert [("logprobs" in body) for body in server.bodies] == [True, False, False]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_each_request_reports_to_its_own_callbacks(chat_server: Any, asynchronous: bool) -> None:
    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, **_: Any) -> None:
            self.heard.append(messages[0][0].content)

    listeners = [Listener() for _ in range(3)]
    configs: Any = [{"callbacks": [listener]} for listener in listeners]
    with chat_server(echo) as server:
        llm = ChatLLM(chat(server))
        await llm.agenerate(prompts(3), configs) if asynchronous else llm.generate(prompts(3), configs)
    assert [listener.heard for listener in listeners] == [[f"question {i}"] for i in range(3)]


def test_what_tells_models_apart(chat_server: Any) -> None:
    with chat_server(echo) as server:
        plain = ChatLLM(chat(server)).identity
        assert plain == ChatLLM(chat(server)).identity == ChatLLM(chat(server).with_retry()).identity
        others = [chat(server, temperature=0.5), chat(server, model="other"), chat(server).bind(stop=["x"])]
        assert len({plain, *(ChatLLM(other).identity for other in others)}) == 4
