"""Counting, remembering and limiting, around a model that knows what it was asked."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pydantic import ValidationError

from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import LLM, Completion, Cost, DeadlineError, LabelScores, RequestError, ScoresText, TextScore
from ragkit.llms.budget import Budget, Spending
from ragkit.llms.cached import Cached
from ragkit.llms.chat import ChatLLM
from ragkit.llms.metered import Metered, Totals


class Echo:
    """Answers with the prompt; fails where it says so. Remembers what it was asked."""

    identity = "echo"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.configs: list[Any] = []

    def _each(self, prompts: Any, configs: Any, make: Any) -> list[Any]:
        texts = [str(prompt[-1].text) for prompt in prompts]
        self.asked += texts
        self.configs += configs or []
        return [RagkitError("failed") if "fail" in text else make(i, text) for i, text in enumerate(texts)]

    def generate(self, prompts: Any, configs: Any = None, until: Any = None) -> Any:
        return self._each(prompts, configs, lambda _, text: Completion(text.upper(), Cost(1, len(text), 2)))

    def score_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> Any:
        def scores(i: int, _: str) -> LabelScores:
            return LabelScores(tuple(-math.inf if label == "no" else -0.1 for label in labels[i]), Cost(2))

        return self._each(prompts, configs, scores)

    async def agenerate(self, prompts: Any, configs: Any = None, until: Any = None) -> Any:
        return self.generate(prompts, configs)

    async def ascore_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> Any:
        return self.score_labels(prompts, labels, configs)


class EchoOfText(Echo):
    """One that scores texts, too."""

    def query_likelihood(self, prompts: Any, continuations: Any, configs: Any = None, until: Any = None) -> Any:
        return self._each(prompts, configs, lambda i, _: TextScore(-float(len(continuations[i])), Cost(1, 3, 4)))

    async def aquery_likelihood(self, prompts: Any, continuations: Any, configs: Any = None, until: Any = None) -> Any:
        return self.query_likelihood(prompts, continuations, configs)


def users(*texts: str) -> Sequence[list[BaseMessage]]:
    return [[HumanMessage(text)] for text in texts]


def test_wrappers_have_the_abilities_of_what_they_wrap(tmp_path: Path) -> None:
    for wrap in (Metered, lambda llm: Cached(llm, tmp_path / "answers")):
        assert isinstance(wrap(Echo()), LLM)
        assert not isinstance(wrap(Echo()), ScoresText)
        assert isinstance(wrap(EchoOfText()), ScoresText)
        assert isinstance(Metered(wrap(EchoOfText())), ScoresText)
        with pytest.raises(InputError, match="llm: str neither generates nor scores labels"):
            wrap("model")


async def test_metered_counts_everything() -> None:
    llm = Metered(EchoOfText())
    configs: Any = [{"tags": ["a"]}, {"tags": ["b"]}]
    found = llm.generate(users("one", "fail"), configs)
    assert found[0] == Completion("ONE", Cost(1, 3, 2))
    assert isinstance(found[1], RagkitError)
    assert llm.llm.configs == configs
    before = llm.totals
    assert before._replace(seconds=0) == Totals(2, 3, 2, 0, 1, 0, 0)
    await llm.agenerate(users("four"))
    llm.score_labels(users("x"), [["yes"]])
    await llm.ascore_labels(users("x"), labels=[["yes"]])
    llm.query_likelihood(users("x"), ["abc"])
    await llm.aquery_likelihood(users("x"), continuations=["abc"])
    assert llm.totals._replace(seconds=0) == Totals(2 + 1 + 4 + 2, 3 + 4 + 6, 2 + 2 + 8, 0, 1, 0, 2)
    assert llm.totals.seconds > before.seconds > 0
    assert llm.reset().calls == 9
    assert llm.totals == Totals()


def test_metered_counts_in_threads(tmp_path: Path) -> None:
    llm = Metered(Echo())
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: llm.generate(users("a", "fail", str(i))), range(200)))
    assert llm.totals._replace(seconds=0, prompt_tokens=0) == Totals(600, 0, 800, 0, 200, 0, 0)
    assert llm.totals.prompt_tokens == 200 + 10 + 180 + 300


def test_metered_around_a_cache_sees_what_came_from_it(tmp_path: Path) -> None:
    llm = Metered(Cached(Echo(), tmp_path / "answers"))
    llm.generate(users("one", "one", "two"))
    llm.generate(users("one"))
    assert llm.totals._replace(seconds=0) == Totals(2, 6, 4, 0, 0, 2, 0)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_answers_are_remembered(tmp_path: Path, asynchronous: bool) -> None:
    async def ask(llm: Any) -> list[Any]:
        prompts = users("one", "two")
        if asynchronous:
            labels = await llm.ascore_labels(prompts, [["yes", "no"], ["no"]])
            return [await llm.agenerate(prompts), labels, await llm.aquery_likelihood(prompts, ["a", "bc"])]
        labels = llm.score_labels(prompts, [["yes", "no"], ["no"]])
        return [llm.generate(prompts), labels, llm.query_likelihood(prompts, ["a", "bc"])]

    first, second = EchoOfText(), EchoOfText()
    found = await ask(Cached(first, tmp_path / "deep" / "answers.sqlite"))
    assert found == await ask(first)
    again = await ask(Cached(second, tmp_path / "deep" / "answers.sqlite"))
    assert again == [[one._replace(cost=one.cost._replace(cached=True)) for one in part] for part in found]
    assert [[type(one) for one in part] for part in again] == [[type(one) for one in part] for part in found]
    assert second.asked == []


def test_only_what_is_new_is_asked_and_only_once(tmp_path: Path) -> None:
    echo = Echo()
    llm = Cached(echo, tmp_path / "answers")
    llm.generate(users("one"))
    configs: Any = [{"tags": [str(i)]} for i in range(5)]
    found = llm.generate(users("two", "one", "three", "two", "fail"), configs)
    assert echo.asked == ["one", "two", "three", "fail"]
    assert [config["tags"] for config in echo.configs] == [["0"], ["2"], ["4"]]
    assert [one.text for one in found[:4]] == ["TWO", "ONE", "THREE", "TWO"]
    assert [one.cost.cached for one in found[:4]] == [False, True, False, True]
    llm.generate(users("fail", "fail"))  # a failure is not an answer
    assert echo.asked == ["one", "two", "three", "fail", "fail"]
    assert len(llm) == 3


def test_every_part_of_a_request_counts(tmp_path: Path) -> None:
    echo = Echo()
    path = tmp_path / "answers"
    llm = Cached(echo, path)
    llm.generate([[HumanMessage("a")], [AIMessage("a")], [HumanMessage("a"), HumanMessage("")], [HumanMessage("A")]])
    llm.score_labels(users("a", "a", "a"), [["x"], ["x", "y"], ["y", "x"]])
    Cached(echo, path, name="other").generate(users("a"))
    assert len(echo.asked) == len(llm) == 8
    Cached(echo, path, name="echo").generate([[HumanMessage("a", id="says nothing")]])
    assert len(echo.asked) == 8


def test_odd_texts_are_remembered(tmp_path: Path) -> None:
    echo = Echo()
    llm = Cached(echo, tmp_path / "answers")
    odd = users("", "\x00", "\ud800", "𝕏 é", "'; DROP TABLE answers")
    assert [one.text for one in llm.generate(odd)] == [one.text for one in llm.generate(odd)]
    assert len(echo.asked) == 5


def test_models_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    for answer in ("x", "y"):
        llm = Cached(ChatLLM(FakeListChatModel(responses=[answer])), path)
        assert llm.generate(users("a"))[0].text == answer  # type: ignore[union-attr]
    nameless = ChatLLM(GenericFakeChatModel(messages=iter([AIMessage("z")])))
    with pytest.raises(InputError, match="name: GenericFakeChatModel does not say what tells it from others; pass a name"):
        Cached(nameless, path)
    assert Cached(nameless, path, name="z").generate(users("a"))[0].text == "z"  # type: ignore[union-attr]


def test_threads_share_a_cache(tmp_path: Path) -> None:
    llm = Cached(Echo(), tmp_path / "answers")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: llm.generate(users(f"q{i % 10}", f"q{i}"))[1].text, range(60)))
    assert found == [f"Q{i}" for i in range(60)]
    assert len(llm) == 60


WORKER = """
import sys
from ragkit.llms.answers import AnswerTable
table = AnswerTable(sys.argv[1])
for i in range(60):
    keys = [str(i), str(i + 1)]
    assert all(value == [key] for key, value in table.get(keys).items())
    table.put({key: [key] for key in keys})
    assert table.get(keys) == {key: [key] for key in keys}
"""


def test_threads_may_create_a_cache_together(tmp_path: Path) -> None:
    def open_and_ask(i: int) -> Any:
        return Cached(Echo(), tmp_path / str(i // 8)).generate(users("same", str(i)))

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(open_and_ask, range(80)))
    assert [[one.text for one in answers] for answers in found] == [["SAME", str(i)] for i in range(80)]


def test_processes_share_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [worker.communicate()[1].decode() for worker in workers]
    assert errors == [""] * 4
    assert len(Cached(Echo(), path)) == 61


def test_a_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(b"SQLite format 3\x00 and then nothing of the kind" * 40)
    with pytest.raises(
        RagkitError, match=r"path: the answer cache .*torn cannot be used: file is not a database; if it is damaged"
    ):
        Cached(Echo(), torn)
    foreign = tmp_path / "foreign"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE answers (key, value)")
    connection.commit()
    connection.close()
    with pytest.raises(RagkitError, match="foreign is a database, but no answer cache of this version"):
        Cached(Echo(), foreign)
    with pytest.raises(RagkitError, match="cannot be used"):
        Cached(Echo(), tmp_path)
    cut = tmp_path / "cut"
    llm = Cached(Echo(), cut)
    llm.generate(users(*(f"long {i} " * 50 for i in range(100))))
    cut.write_bytes(cut.read_bytes()[: 3 * 4096])
    with pytest.raises(RagkitError, match=r"path: the answer cache .*cut cannot be used: .*delete it"):
        llm.generate(users(*(f"long {i} " * 50 for i in range(100))))


async def test_cancelling_reaches_the_model(tmp_path: Path) -> None:
    class Slow(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.started, self.cancelled = asyncio.Event(), False

        async def agenerate(self, prompts: Any, configs: Any = None, until: Any = None) -> Any:
            self.started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise

    slow = Slow()
    llm = Metered(Cached(slow, tmp_path / "answers"))
    task = asyncio.create_task(llm.agenerate(users("a")))
    await slow.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert slow.cancelled
    assert llm.totals.seconds > 0


def test_what_failed_is_counted_with_what_it_cost(tmp_path: Path) -> None:
    class Fails(Echo):
        def generate(self, prompts: Any, configs: Any = None, until: Any = None) -> Any:
            return [RequestError("no", Cost(2, 5, 6)), DeadlineError(), DeadlineError(Cost()), InputError("too long")]

    llm = Metered(Cached(Fails(), tmp_path / "answers"))
    llm.generate(users("a", "b", "c", "d"))
    assert llm.totals._replace(seconds=0) == Totals(3, 5, 6, 0, 4, 0, 0)


def test_written_answers_are_remembered_among_scores(tmp_path: Path) -> None:
    class Writes(Echo):
        def score_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> Any:
            return [Completion("B", Cost(1, 2, 3)) for _ in prompts]

    for cached in (False, True):
        found = Cached(Writes(), tmp_path / "answers").score_labels(users("a"), [["A", "B"]])
        assert found == [Completion("B", Cost(1, 2, 3, cached))]


COSTS = st.builds(
    Cost,
    st.integers(0, 5),
    st.none() | st.integers(0, 500),
    st.none() | st.integers(0, 500),
    st.booleans(),
)
BUDGETS = st.builds(
    Budget,
    max_calls=st.none() | st.integers(0, 30),
    max_tokens=st.none() | st.integers(0, 3000),
    seconds=st.none() | st.floats(0, 100),
)


PLANS = st.builds(Cost, st.integers(1, 20), st.none() | st.integers(0, 500), st.none() | st.integers(0, 500))


@given(BUDGETS, st.lists(COSTS), PLANS)
def test_a_plan_fits_if_all_of_it_does(budget: Budget, costs: list[Cost], plan: Cost) -> None:
    spending = Spending(budget)
    for cost in costs:
        spending.spend(cost)
    real = [cost for cost in costs if not cost.cached]
    calls, tokens = sum(cost.calls for cost in real), sum((cost[1] or 0) + (cost[2] or 0) for cost in real)
    lacks = spending.lacks(plan)
    assert (lacks == "calls") == (budget.max_calls is not None and calls + plan.calls > budget.max_calls)
    if lacks is None and budget.max_tokens is not None:
        assert tokens + max(plan.calls, (plan.prompt_tokens or 0) + (plan.completion_tokens or 0)) <= budget.max_tokens
    if lacks == "tokens":
        assert budget.max_tokens is not None


def test_tokens_that_a_plan_does_not_say_are_expected_as_before() -> None:
    spending = Spending(Budget(max_tokens=100))
    assert spending.lacks(Cost(100)) is None
    spending.spend(Cost(2, 20, 6))
    assert [spending.lacks(Cost(calls)) for calls in (5, 6)] == [None, "tokens"]
    assert [spending.lacks(Cost(1, prompt)) for prompt in (71, 72)] == [None, "tokens"]


def test_budgets_of_nothing_and_of_everything() -> None:
    assert Spending(Budget(max_calls=0)).lacks(Cost()) == "calls"
    assert Spending(Budget(max_tokens=0)).lacks(Cost()) == "tokens"
    assert Spending(Budget()).lacks(Cost(10**9)) is None
    assert Budget().deadline() is None
    assert 0 < Budget(seconds=60).deadline() - time.monotonic() <= 60  # type: ignore[operator]


def test_budgets_are_checked_and_never_change() -> None:
    for wrong in ({"max_calls": -1}, {"seconds": math.nan}, {"seconds": math.inf}, {"max_dollars": 1}):
        with pytest.raises(ValidationError):
            Budget(**wrong)  # type: ignore[arg-type]
    budget = Budget(max_calls=3)
    with pytest.raises(ValidationError):
        budget.max_calls = 4
    one, other = Spending(budget), Spending(budget)
    one.spend(Cost(3))
    assert (one.lacks(Cost()), other.lacks(Cost(3))) == ("calls", None)


@pytest.mark.parametrize("kind", ["metered", "cached"])
def test_a_chat_model_may_be_wrapped_as_it_is(kind: str, tmp_path: Path) -> None:
    model = FakeListChatModel(responses=["yes"])
    wrapped = Metered(model) if kind == "metered" else Cached(model, tmp_path / "answers.sqlite", name="fake")
    [answer] = wrapped.generate([[HumanMessage("Is it?")]])
    assert isinstance(answer, Completion)
    assert answer.text == "yes"
