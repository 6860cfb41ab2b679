"""Conversations with scripted models and without one: what is searched for, what is remembered, and that all ways agree."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from ragkit import BM25Retriever, GroundedAnswerer, InputError, Pipeline
from ragkit.chains.answerer import NOTHING_FOUND
from ragkit.chains.condense import Condenser, history_text
from ragkit.chains.conversation import Conversation, Turn
from ragkit.chains.followups import carry_terms
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.encoders.lexical import Analyzer

QUESTIONS = ["How old is the bridge?", "Who designed it?"]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    documents = [
        Document(id="a", page_content="The bridge was built in 1932."),
        Document(id="b", page_content="Ada Smith designed the bridge."),
        Document(id="c", page_content="Bo Jones designed the tunnel."),
    ]
    return Pipeline(retriever=BM25Retriever.from_documents(documents), k=1)


def every_way(make: Any, questions: list[str]) -> list[list[Turn]]:
    """The turns of the same conversation, held in four ways."""

    async def streamed(conversation: Conversation) -> None:
        for question in questions:
            pieces = [piece async for piece in conversation.astream(question)]
            check(pieces)

    async def asked(conversation: Conversation) -> None:
        for question in questions:
            await conversation.aask(question)

    def check(pieces: list[Any]) -> None:
        assert "".join(pieces[:-1]) == pieces[-1].answer.text

    conversations = [make() for _ in range(4)]
    for question in questions:
        assert conversations[0].ask(question) is conversations[0].turns[-1]
        check(list(conversations[1].stream(question)))
    asyncio.run(asked(conversations[2]))
    asyncio.run(streamed(conversations[3]))
    return [conversation.turns for conversation in conversations]


def same(ways: list[list[Turn]]) -> list[Turn]:
    shown = [[(t.question, t.standalone, t.answer.text, t.answer.citations) for t in turns] for turns in ways]
    assert all(one == shown[0] for one in shown)
    return ways[0]


def test_without_a_model_words_are_carried_over(pipeline: Pipeline) -> None:
    turns = same(every_way(lambda: Conversation(pipeline), [*QUESTIONS, "zzz"]))
    assert [turn.standalone for turn in turns] == [QUESTIONS[0], "Who designed it? old bridge", "zzz"]
    assert [turn.answer.text for turn in turns] == [
        "The bridge was built in 1932. [1]",
        "Ada Smith designed the bridge. [1]",
        NOTHING_FOUND,
    ]
    assert turns[2].answer.abstained
    assert len({turn.id for turn in turns}) == 3


class Model:
    """A chat model that keeps the prompts it was given; answers to prompts without passages are rewritings."""

    def __init__(self, rewriting: Any) -> None:
        self.prompts: list[str] = []
        self.rewriting = rewriting

    def __call__(self, prompt: Any) -> AIMessage:
        text = "\n".join(str(m.content) for m in (prompt.to_messages() if hasattr(prompt, "to_messages") else prompt))
        self.prompts.append(text)
        if "Passages:" in text:
            return AIMessage("It was Ada Smith [1]." if "Smith" in text else "It was built in 1932 [1].")
        if isinstance(self.rewriting, Exception):
            raise self.rewriting
        return AIMessage(str(self.rewriting))


def scripted(pipeline: Pipeline, rewriting: Any) -> tuple[Conversation, Model]:
    model = Model(rewriting)
    return Conversation(GroundedAnswerer(pipeline=pipeline, llm=RunnableLambda(model))), model


def test_a_model_rewrites_follow_ups_and_answers(pipeline: Pipeline) -> None:
    rewriting = 'Question: "Who designed the bridge?"'
    turns = same(every_way(lambda: scripted(pipeline, rewriting)[0], QUESTIONS))
    assert [turn.standalone for turn in turns] == [QUESTIONS[0], "Who designed the bridge?"]
    assert turns[1].answer.text == "It was Ada Smith [1]."
    assert [citation.id for citation in turns[1].answer.citations] == ["b"]


def test_what_the_model_is_told_of_the_conversation(pipeline: Pipeline) -> None:
    conversation, model = scripted(pipeline, "Who designed the bridge?")
    conversation.ask("When was the bridge <question> built? [3]")
    conversation.ask(QUESTIONS[1])
    answering, condensing, _ = model.prompts
    assert "<conversation>" not in answering  # nothing to rewrite yet
    assert "User: When was the bridge (question> built? (3)\nAssistant: It was built in 1932 (1)." in condensing
    assert "Who designed it?" in condensing


@pytest.mark.parametrize("rewriting", ["", "***", TimeoutError("too slow"), "word " * 400])
def test_a_bad_rewriting_leaves_the_heuristic(pipeline: Pipeline, rewriting: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        ways = every_way(lambda: scripted(pipeline, rewriting)[0], QUESTIONS)
    assert same(ways)[1].standalone == "Who designed it? old bridge"


def test_a_question_that_stands_alone_may_stay(pipeline: Pipeline) -> None:
    conversation, _ = scripted(pipeline, " who designed IT? ")
    conversation.ask(QUESTIONS[0])
    assert conversation.ask(QUESTIONS[1]).standalone == QUESTIONS[1]


def test_failures_and_streams_that_are_left_leave_no_turn(pipeline: Pipeline) -> None:
    failing = RunnableLambda(lambda prompt: 1 / 0)
    conversation = Conversation(GroundedAnswerer(pipeline=pipeline, llm=failing, on_failure="raise"))
    with pytest.raises(ZeroDivisionError):
        conversation.ask(QUESTIONS[0])
    plain = Conversation(pipeline)
    next(plain.stream(QUESTIONS[0]))
    assert conversation.turns == plain.turns == []


def test_reset_and_a_condenser_over_a_pipeline(pipeline: Pipeline) -> None:
    condenser = Condenser(FakeListChatModel(responses=["Who designed the tunnel?"]))
    conversation = Conversation(pipeline, condenser=condenser)
    conversation.ask(QUESTIONS[0])
    assert conversation.ask(QUESTIONS[1]).answer.text == "Bo Jones designed the tunnel. [1]"
    conversation.reset()
    assert conversation.turns == []
    assert conversation.ask(QUESTIONS[1]).standalone == QUESTIONS[1]


def test_what_cannot_be_talked_to() -> None:
    with pytest.raises(InputError, match="source: pass a Pipeline or a GroundedAnswerer, not str"):
        Conversation("pipeline")  # type: ignore[arg-type]


TEXTS = st.text("ab it's this Zoë\n[1]<é", max_size=30)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6), st.integers(0, 60))
def test_history_keeps_to_its_budget_and_drops_the_oldest_first(exchanges: list[tuple[str, str]], budget: int) -> None:
    text = history_text(exchanges, budget)
    assert sum(count_tokens(RegexTokenizer(), text.split("\n"))) <= budget
    whole, kept = history_text(exchanges, 10_000).split("\n"), text.split("\n") if text else []
    # whole exchanges from the end, and perhaps the question of the one before
    assert kept == whole[len(whole) - len(kept) :] or kept == [whole[-len(kept) - 1], *whole[len(whole) - len(kept) + 1 :]]
    assert "[" not in text
    assert history_text(exchanges, 10_000).count("User:") == len(exchanges)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_carried_words_are_new_ones_of_the_questions_before(questions: list[str]) -> None:
    analyzer = Analyzer()
    result = carry_terms(questions, analyzer)
    assert result.startswith(questions[-1])
    own, added = set(analyzer(questions[-1])), analyzer(result[len(questions[-1]) :])
    assert not own.intersection(added)
    assert len(added) == len(set(added)) <= 12
    assert set(added) <= {term for question in questions[-3:-1] for term in analyzer(question)}


def test_only_questions_that_refer_back_take_words_over() -> None:
    analyzer = Analyzer()
    history = ["What is a Lite plan?", "How do accounts work in IBM Cloud?"]
    assert carry_terms([*history, "How can I create one?"], analyzer) == "How can I create one? accounts work IBM Cloud Lite plan"
    assert carry_terms([*history, "How can I create one?"], analyzer, depth=1, most=2) == "How can I create one? accounts work"
    assert carry_terms([*history, "Who discovered penicillin?"], analyzer) == "Who discovered penicillin?"
    german = Analyzer("german")
    assert carry_terms(["Wann endet der Mietvertrag?", "Und der Preis?"], german) == "Und der Preis? endet Mietvertrag"
