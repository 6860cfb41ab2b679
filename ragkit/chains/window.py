"""The room that a chat model's window leaves for a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables.base import RunnableBindingBase

from ragkit.chains.structured import StructuredModel
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.errors import InputError

Prompt = Callable[[str], Sequence[BaseMessage]]
"""The messages of a question's prompt, without any context."""

_ANSWER = 4096
"""Tokens that are kept free for an answer whose length nobody has bounded; no more than a quarter of the window."""
_PER_MESSAGE = 8
"""Tokens that a chat template may add around a message."""
_ESTIMATED = 0.9
"""Of the window, where tokens are only estimated."""


class WindowBudget:
    """What is left of a model's window beside the prompt, its question and the answer; see `Budget`.

    The window is `max_input_tokens` of the model's `profile`. Tokens are counted by the model's `custom_get_token_ids`, or by
    its `tokenizer` if it has one, as models that run locally do; else they are estimated, and a tenth is kept free. A
    provider's own counter is not asked, since that may take a request over the network.
    """

    def __init__(self, model: BaseChatModel, window: int, prompt: Prompt, answer: Any = None) -> None:
        """`window` in tokens of the model; `window_budget` finds it. `answer` is a bound of answers beside the model's own."""
        own = _counter(model)
        self._count = own or _estimate
        self._room = (window if own else int(window * _ESTIMATED)) - _for_answer(model, window, answer)
        self._window, self._prompt = window, prompt

    def tokens(self, question: str) -> int:
        """See `Budget`."""
        messages = self._prompt(question)
        spent = sum(self._count([str(message.text) for message in messages])) + _PER_MESSAGE * len(messages)
        if spent >= self._room:
            raise InputError(
                f"question: the model's window of {self._window} tokens has no room for passages beside a prompt of {spent}; "
                "ask a shorter question, or set max_tokens"
            )
        return self._room - spent

    def count(self, texts: Sequence[str]) -> list[int]:
        """See `Budget`."""
        return self._count(texts)


def window_budget(llm: Any, prompt: Prompt) -> WindowBudget | None:
    """The budget of a chat model, also one with arguments or retries around it or `structured`; None if its window is unknown."""
    model, bound = _model(llm)
    window = (getattr(model, "profile", None) or {}).get("max_input_tokens")
    if not isinstance(model, BaseChatModel) or not isinstance(window, int) or window <= 0:
        return None
    return WindowBudget(model, window, prompt, bound.get("max_tokens"))


def _model(llm: Any) -> tuple[Any, dict[str, Any]]:
    """The model inside, and the arguments that are bound to it."""
    bound: dict[str, Any] = {}
    while isinstance(llm, RunnableBindingBase | StructuredModel):
        if isinstance(llm, StructuredModel):
            llm = llm.model
        else:
            llm, bound = llm.bound, {**llm.kwargs, **bound}
    return llm, bound


def _for_answer(model: BaseChatModel, window: int, bound: Any) -> int:
    """The bound of answers, else the model's own, else what it can write at most, up to `_ANSWER`."""
    bound = getattr(model, "max_tokens", None) if bound is None else bound
    if isinstance(bound, int) and bound > 0:
        return min(bound, window // 2)
    most = (model.profile or {}).get("max_output_tokens")
    return min(most if isinstance(most, int) and most > 0 else _ANSWER, _ANSWER, window // 4)


def _counter(model: BaseChatModel) -> Callable[[Sequence[str]], list[int]] | None:
    own = model.custom_get_token_ids or getattr(getattr(model, "tokenizer", None), "encode", None)
    return None if own is None else lambda texts: [len(own(text)) for text in texts]


def _estimate(texts: Sequence[str]) -> list[int]:
    return count_tokens(RegexTokenizer(), texts)
