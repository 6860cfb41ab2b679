"""Prompts are friends of prompt caches: what stays the same comes first, and nothing in it changes."""

from itertools import pairwise
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from ragkit import BM25Retriever, Conversation, GroundedAnswerer, Pipeline
from ragkit.chains.condense import Condenser
from ragkit.prompting import load_prompt

DOCUMENTS = [
    Document(id="a", page_content="The bridge was built in 1932."),
    Document(id="b", page_content="Ada Smith designed the tower of Leeds."),
]


class Ears:
    """A model that keeps its prompts, as the text that a provider gets."""

    def __init__(self, says: str = "In 1932 [1].") -> None:
        self.heard: list[str] = []
        self.llm = RunnableLambda(self._reply)
        self._says = says

    def _reply(self, prompt: Any) -> AIMessage:
        messages = prompt if isinstance(prompt, list) else prompt.to_messages()
        self.heard.append("\n".join(f"{message.type}: {message.text}" for message in messages))
        return AIMessage(self._says)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(retriever=BM25Retriever.from_documents(DOCUMENTS))


def test_questions_share_all_that_comes_before_the_passages(pipeline: Pipeline) -> None:
    ears = Ears()
    answerer = GroundedAnswerer(pipeline=pipeline, llm=ears.llm)
    for question in ("When was the bridge built?", "Who designed the tower?", "When was the bridge built?"):
        answerer.invoke(question)
    first, second, again = ears.heard
    rules = str(load_prompt("grounded_answer").format_messages(context="", question="")[0].text)
    shared = first[: next(at for at, (ours, theirs) in enumerate(zip(first, second, strict=False)) if ours != theirs)]
    assert rules in shared
    assert shared.endswith("[1] ")  # the same up to the name of the first passage
    assert first == again  # no time, and no number of a run
    # the question comes last, so that another one on the same passages shares these as well
    assert first.rstrip().endswith("\n\nQuestion: When was the bridge built?")


def test_messages_of_a_conversation_stay_the_beginning(pipeline: Pipeline) -> None:
    ears = Ears()
    rules, turns, beginning = ("system", "Cite passages."), list[tuple[str, str]](), "system: Cite passages.\n"
    for question in ("When was the bridge built?", "Who designed the tower?", "When was the bridge built?"):
        template = ChatPromptTemplate.from_messages([rules, *turns, ("human", "{context}\n\n{question}")])
        answer = GroundedAnswerer(pipeline=pipeline, llm=ears.llm, prompt=template).invoke(question)
        assert ears.heard[-1].startswith(f"{beginning}human: [1]")
        turns += [("human", question), ("ai", answer.text)]
        beginning += f"human: {question}\nai: {answer.text}\n"


def test_follow_ups_are_rewritten_behind_a_history_that_only_grows(pipeline: Pipeline) -> None:
    ears = Ears("When was the tower built?")
    conversation = Conversation(pipeline, condenser=Condenser(ears.llm))
    for question in ("When was the bridge built?", "And the tower?", "Who designed it?", "And when?"):
        conversation.ask(question)
    histories = [prompt.split("\n</conversation>")[0] for prompt in ears.heard]
    assert len(histories) == 3
    for earlier, later in pairwise(histories):
        assert later.startswith(earlier)
        assert len(later) > len(earlier)
