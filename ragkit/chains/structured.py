"""Answers as statements with numbers, from models that can be held to a schema; everything behind them reads plain text."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field


class Statement(BaseModel):
    """One sentence of an answer."""

    text: str = Field(description="One sentence, without numbers in brackets.")
    passages: list[int] = Field(default=[], description="The numbers of the passages that support the sentence.")


class Statements(BaseModel):
    """An answer, sentence by sentence."""

    statements: list[Statement]


class StructuredModel(RunnableLambda[Any, AIMessage]):
    """A chat model that answers in statements; see `structured`."""

    def __init__(self, model: BaseChatModel, bound: Runnable[Any, Any]) -> None:
        """`bound` is the `model` with its output held to `Statements`, the raw message included."""

        def ask(prompt: Any, config: RunnableConfig) -> AIMessage:
            return _message(bound.invoke(prompt, config))

        async def aask(prompt: Any, config: RunnableConfig) -> AIMessage:
            return _message(await bound.ainvoke(prompt, config))

        super().__init__(ask, aask, name="statements")
        self.model = model


def structured(model: BaseChatModel) -> Runnable[Any, Any]:
    """The model, held to a schema of statements that each name their passages: `GroundedAnswerer(llm=structured(model), ...)`.

    What it says becomes text with [n] behind each statement, and is checked like any other. Models that know no structured
    output stay as they are; an answer that does not fit the schema is taken as text. Such answers are not streamed.
    """
    try:
        return StructuredModel(model, model.with_structured_output(Statements, include_raw=True))
    except NotImplementedError:
        return model


def freely(model: Any) -> Any:
    """The model as it is where no schema holds it: for what is not an answer to be cited."""
    return model.model if isinstance(model, StructuredModel) else model


def _message(reply: Any) -> AIMessage:
    raw, parsed = reply["raw"], reply["parsed"]
    if not isinstance(parsed, Statements):
        return AIMessage(str(raw.text), usage_metadata=getattr(raw, "usage_metadata", None))
    said = (statement.text.strip() + "".join(f" [{n}]" for n in statement.passages) for statement in parsed.statements)
    return AIMessage("\n".join(said), usage_metadata=getattr(raw, "usage_metadata", None))
