"""The answerer with scripted models: every way of asking gives the same checked answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from ragkit import BM25Retriever
from ragkit.chains.answer import Answer
from ragkit.chains.answerer import MODEL_FAILED, NOTHING_FOUND, GroundedAnswerer
from ragkit.chains.conversation import Conversation
from ragkit.chains.pipeline import Pipeline
from ragkit.chains.structured import structured
from ragkit.errors import InputError

USAGE = {"input_tokens": 50, "output_tokens": 10, "total_tokens": 60}
QUESTIONS = ["When was the bridge built?", "Who designed the bridge?", "What of zzz?"]


class Scripted(BaseChatModel):
    """Says the same to every question, in chunks of a given size."""

    says: str
    size: int = 3
    fails_after: int | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if self.fails_after is not None:
            raise TimeoutError("too slow")
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.says, usage_metadata=USAGE))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for start in range(0, len(self.says), self.size):
            if self.fails_after is not None and start >= self.fails_after:
                raise TimeoutError("too slow")
            yield ChatGenerationChunk(message=AIMessageChunk(content=self.says[start : start + self.size]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    documents = [
        Document(id="a", page_content="The bridge was built in 1932. It is red."),
        Document(id="b", page_content="Ada Smith designed the bridge. She came from Leeds."),
    ]
    return Pipeline(retriever=BM25Retriever.from_documents(documents))


def every_way(answerer: GroundedAnswerer, question: str) -> list[Answer]:
    async def streamed() -> Any:
        total: Any = ""
        async for piece in answerer.astream(question):
            total += piece
        return total

    total: Any = ""
    pieces = []
    for piece in answerer.stream(question):
        total += piece
        pieces.append(piece)
    assert all(isinstance(piece, str) for piece in pieces[:-1])
    assert "".join(pieces[:-1]) == pieces[-1].text
    return [
        total,
        answerer.invoke(question),
        answerer.batch([question])[0],
        asyncio.run(answerer.ainvoke(question)),
        asyncio.run(answerer.abatch([question]))[0],
        asyncio.run(streamed()),
    ]


def same(answers: list[Answer]) -> Answer:
    """All but what a clock has measured."""
    shown = [(a.text, a.citations, a.abstained, a.claims, a.unsupported, a.problems, a.usage) for a in answers]
    assert all(one == shown[0] for one in shown)
    return answers[0]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_wrong_repeated_split_and_unknown_citations(pipeline: Pipeline, size: int) -> None:
    says = "<think>[2]?</think>It was built in 1932 [1][1], [7]. Ada Smith designed it [1, 2] [9]. It is made of cheese [1]."
    answer = same(every_way(GroundedAnswerer(pipeline=pipeline, llm=Scripted(says=says, size=size)), QUESTIONS[0]))
    first = {passage.n: passage.id for passage in answer.context.passages}[1]
    assert answer.text == "It was built in 1932 [1],. Ada Smith designed it [1][2]. It is made of cheese [1]."
    assert [citation.id for citation in answer.citations] == ["a", "b"]
    assert first == "a"
    assert [claim.text for claim in answer.unsupported] == ["It is made of cheese."]
    assert answer.problems == ("cites passages that do not exist: 7, 9",)
    assert not answer.abstained
    assert answer.usage == {"calls": 1, "prompt_tokens": 50, "completion_tokens": 10}
    for citation in answer.citations:
        whole = {"a": "The bridge was built in 1932. It is red.", "b": "Ada Smith designed the bridge. She came from Leeds."}
        assert whole[citation.id][citation.start : citation.end] == citation.text


def test_false_quotations_are_reported(pipeline: Pipeline) -> None:
    answer = GroundedAnswerer(pipeline=pipeline, llm=Scripted(says='It says "the bridge was sold in 1932" [1].')).invoke(
        QUESTIONS[0]
    )
    assert answer.problems == ("quotes what no passage says: the bridge was sold in 1932",)


def test_nothing_found_asks_no_model(pipeline: Pipeline) -> None:
    answer = same(every_way(GroundedAnswerer(pipeline=pipeline, llm=Scripted(says="never", fails_after=0)), QUESTIONS[2]))
    assert (answer.text, answer.abstained, answer.usage) == (NOTHING_FOUND, True, {"calls": 0})


def test_a_model_that_says_there_is_no_answer_abstains(pipeline: Pipeline) -> None:
    answer = same(every_way(GroundedAnswerer(pipeline=pipeline, llm=Scripted(says="Nobody knows that.")), QUESTIONS[0]))
    assert answer.abstained
    assert not answer.unsupported


@pytest.mark.parametrize("model", [Scripted(says="", size=1), Scripted(says="   "), Scripted(says="x", fails_after=0)])
def test_a_model_that_fails_leaves_the_sentences(pipeline: Pipeline, model: Scripted) -> None:
    answer = same(every_way(GroundedAnswerer(pipeline=pipeline, llm=model), QUESTIONS[0]))
    assert "The bridge was built in 1932. [1]" in answer.text
    assert answer.problems == (MODEL_FAILED,)
    assert answer.usage["failure"].split(":")[0] in ("TimeoutError", "RagkitError")
    with pytest.raises(Exception, match=r"too slow|said nothing"):
        GroundedAnswerer(pipeline=pipeline, llm=model, on_failure="raise").invoke(QUESTIONS[0])


def test_a_stream_that_breaks_raises_after_its_first_words(pipeline: Pipeline) -> None:
    stream = GroundedAnswerer(pipeline=pipeline, llm=Scripted(says="It was built [1] in", fails_after=9)).stream(QUESTIONS[0])
    said = []
    with pytest.raises(TimeoutError, match="too slow"):
        said.extend(stream)
    assert "".join(said) in "It was built"


def test_a_batch_keeps_its_order_and_its_failures_apart(pipeline: Pipeline) -> None:
    def reply(prompt: Any) -> AIMessage:
        if "Who" in prompt.to_string():
            raise TimeoutError("too slow")
        return AIMessage("In 1932 [1].")

    answerer = GroundedAnswerer(pipeline=pipeline, llm=RunnableLambda(reply), on_failure="raise")
    first, second, third = answerer.batch(QUESTIONS, return_exceptions=True)
    assert first.text == "In 1932 [1]."
    assert isinstance(second, TimeoutError)
    assert third.text == NOTHING_FOUND
    assert answerer.batch([]) == []


async def test_a_wrong_question_fails_alone_and_before_any_is_answered_if_it_is_raised(pipeline: Pipeline) -> None:
    calls: list[Any] = []

    def reply(prompt: Any) -> AIMessage:
        calls.append(prompt)
        return AIMessage("In 1932 [1].")

    answerer = GroundedAnswerer(pipeline=pipeline, llm=RunnableLambda(reply))
    asked: list[Any] = [QUESTIONS[0], None]
    for results in (answerer.batch(asked, return_exceptions=True), await answerer.abatch(asked, return_exceptions=True)):
        assert results[0].text == "In 1932 [1]."
        assert isinstance(results[1], InputError)
    assert len(calls) == 2
    with pytest.raises(InputError, match="query must be a string"):
        answerer.batch(asked)
    assert len(calls) == 2


def test_a_model_whose_batch_fails_as_a_whole_leaves_the_sentences(pipeline: Pipeline) -> None:
    class Whole(RunnableLambda[Any, Any]):
        def batch(self, *args: Any, **kwargs: Any) -> Any:
            raise TimeoutError("too slow")

        async def abatch(self, *args: Any, **kwargs: Any) -> Any:
            raise TimeoutError("too slow")

    answerer = GroundedAnswerer(pipeline=pipeline, llm=Whole(lambda prompt: "In 1932 [1]."))
    for answers in (answerer.batch(QUESTIONS), asyncio.run(answerer.abatch(QUESTIONS))):
        assert [answer.problems for answer in answers] == [(MODEL_FAILED,), (MODEL_FAILED,), ()]
        assert "The bridge was built in 1932. [1]" in answers[0].text


class _Names(BaseCallbackHandler):
    def __init__(self) -> None:
        self.names: list[str] = []
        self.ended: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, name: str = "", **kwargs: Any) -> None:
        self.names.append(name)

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.ended.append(outputs)


def test_callbacks_see_the_answer(pipeline: Pipeline) -> None:
    answerer = GroundedAnswerer(pipeline=pipeline, llm=Scripted(says="In 1932 [1]."))
    for ask in (lambda config: answerer.invoke(QUESTIONS[0], config), lambda config: list(answerer.stream(QUESTIONS[0], config))):
        handler = _Names()
        ask({"callbacks": [handler]})
        assert handler.names[:2] == ["GroundedAnswerer", "Pipeline.ground"]
        assert isinstance(handler.ended[-1], Answer)


def test_the_answer_flows_on_in_a_chain(pipeline: Pipeline) -> None:
    chain = GroundedAnswerer(pipeline=pipeline, llm=Scripted(says="In 1932 [1].")) | RunnableLambda(lambda answer: answer.text)
    assert chain.invoke(QUESTIONS[0]) == "In 1932 [1]."
    assert list(chain.stream(QUESTIONS[0])) == ["In 1932 [1]."]


def test_prompts_must_have_the_two_variables(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="context and question"):
        GroundedAnswerer(pipeline=pipeline, llm=Scripted(says=""), prompt=ChatPromptTemplate.from_messages([("user", "{topic}")]))


class Structured(Scripted):
    """A model with structured output."""

    arguments: dict[str, Any]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        name = tools[0].__name__
        call = {"name": name, "args": self.arguments, "id": "1"}
        return RunnableLambda(lambda prompt: AIMessage(self.says, tool_calls=[call], usage_metadata=USAGE))


def test_structured_output_is_checked_like_text(pipeline: Pipeline) -> None:
    statements = [{"text": "It was built in 1932.", "passages": [1, 9]}, {"text": "It is blue.", "passages": [1]}]
    model = Structured(says="", arguments={"statements": statements})
    answer = same(every_way(GroundedAnswerer(pipeline=pipeline, llm=structured(model)), QUESTIONS[0]))
    assert answer.text == "It was built in 1932. [1]\nIt is blue. [1]"
    assert answer.problems == ("cites passages that do not exist: 9",)
    assert [claim.text for claim in answer.unsupported] == ["It is blue."]
    assert answer.usage["prompt_tokens"] == 50


def test_structured_output_that_does_not_fit_is_text(pipeline: Pipeline) -> None:
    model = Structured(says="In 1932 [1].", arguments={"statements": 7})
    assert GroundedAnswerer(pipeline=pipeline, llm=structured(model)).invoke(QUESTIONS[0]).text == "In 1932 [1]."


def test_follow_ups_are_rewritten_by_the_model_without_its_schema(pipeline: Pipeline) -> None:
    model = Structured(says="Who designed the bridge?", arguments={"statements": [{"text": "In 1932.", "passages": [1]}]})
    conversation = Conversation(GroundedAnswerer(pipeline=pipeline, llm=structured(model)))
    conversation.ask(QUESTIONS[0])
    assert conversation.standalone("And who designed it?") == "Who designed the bridge?"


def test_models_without_structured_output_stay_as_they_are() -> None:
    model = Scripted(says="")
    assert structured(model) is model


async def test_cancelling_stops_the_model(pipeline: Pipeline) -> None:
    asked = asyncio.Event()
    stopped = asyncio.Event()

    async def slow(prompt: Any) -> AsyncIterator[str]:
        asked.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.set()
            raise
        yield "never"

    answerer = GroundedAnswerer(pipeline=pipeline, llm=RunnableLambda(slow))
    task = asyncio.create_task(answerer.ainvoke(QUESTIONS[0]))
    await asyncio.wait_for(asked.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()
