"""Whatever a user passes as `llm`, as a language model of ragkit."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable

from ragkit.errors import InputError
from ragkit.llms.base import LLM
from ragkit.llms.chat import ChatLLM


def as_llm(llm: Any) -> LLM:
    """A model with both abilities: one of ragkit as it is, a LangChain chat model (or a Runnable around one) as `ChatLLM`.

    Raises `InputError` for anything else.
    """
    if isinstance(llm, LLM):
        return llm
    if isinstance(llm, Runnable):
        return ChatLLM(llm)
    raise InputError(
        f"llm: pass a LangChain chat model, or LocalLLM(folder or hub name), not {type(llm).__name__} {str(llm)[:60]!r}"
    )
