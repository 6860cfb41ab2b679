"""Any LangChain chat model as a language model of ragkit: concurrent, cancellable, its usage counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import BaseModel

from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import Completion, Cost, LabelScores, Prompt
from ragkit.llms.labels import first_tokens, from_tokens, named, of_named

_REFUSED = (400, 404, 422)  # what HTTP answers to a parameter that a model does not take


class ChatLLM:
    """Implements `Generates` and `ScoresLabels` over a chat model, or over a Runnable around one (`with_retry`, fallbacks).

    `max_concurrency` is the most requests that are under way at once: in each call when sync, in all of an event loop
    together when async; None leaves it to LangChain. Retries, rate limits and timeouts are the model's own: nothing is
    repeated here. Labels are scored by the `top_logprobs` likeliest first tokens if the provider reports them; if it does not
    (then it is not asked for them again), or if none of them spells a label, by the label that a written answer names.
    None never asks for log-probabilities.
    """

    def __init__(self, model: Runnable[Any, Any], max_concurrency: int | None = 16, *, top_logprobs: int | None = 20) -> None:
        if not isinstance(model, Runnable):
            raise InputError(f"model: a LangChain chat model is needed, not {type(model).__name__}")
        if max_concurrency is not None and max_concurrency < 1:
            raise InputError(f"max_concurrency: at least 1, not {max_concurrency}")
        if top_logprobs is not None and top_logprobs < 1:
            raise InputError(f"top_logprobs: at least 1, or None for models without them, not {top_logprobs}")
        self.model = model
        self.max_concurrency = max_concurrency
        self._scoring = None if top_logprobs is None else model.bind(logprobs=True, top_logprobs=top_logprobs, max_tokens=1)
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @property
    def identity(self) -> str:
        """What tells the model and its parameters from others, as LangChain's own cache does.

        Raises `InputError` if the model does not say: an answer of one model must not pass for one of another.
        """
        return f"chat {_identity(self.model)}"

    def structured(self, schema: type[BaseModel] | dict[str, Any]) -> ChatLLM | None:
        """The same model made to answer in a schema, its texts being JSON; None if it cannot.

        An answer that does not fit the schema comes back as the text it is, or as the error of the provider's client.
        """
        make = getattr(self.model, "with_structured_output", None)
        try:
            shaped = make(schema, include_raw=True) if make else None
        except NotImplementedError:
            return None
        return shaped and ChatLLM(shaped, self.max_concurrency, top_logprobs=None)

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None
    ) -> list[Completion | Exception]:
        """See `Generates`."""
        return [_completion(reply) for reply in self._ask(self.model, prompts, configs)]

    async def agenerate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None
    ) -> list[Completion | Exception]:
        """See `Generates`; requests under way are cancelled with it, and those that wait never start."""
        return [_completion(reply) for reply in await self._aask(self.model, prompts, configs)]

    def score_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig] | None = None
    ) -> list[LabelScores | Exception]:
        """See `ScoresLabels`. An answer that names no label, or two, is an error in its place."""
        configs = _one_each(prompts, configs)
        scoring = self._scoring
        first = [None] * len(prompts) if scoring is None else self._ask(scoring, prompts, configs)
        found = [_reported(reply, its_labels) for reply, its_labels in zip(first, labels, strict=True)]
        open_ = [i for i, scores in enumerate(found) if scores is None]
        replies = self._ask(self.model, [prompts[i] for i in open_], [configs[i] for i in open_])
        return self._with_named(found, first, labels, zip(open_, replies, strict=True))

    async def ascore_labels(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig] | None = None
    ) -> list[LabelScores | Exception]:
        """Async form of `score_labels`; cancelled like `agenerate`."""
        configs = _one_each(prompts, configs)
        scoring = self._scoring
        first = [None] * len(prompts) if scoring is None else await self._aask(scoring, prompts, configs)
        found = [_reported(reply, its_labels) for reply, its_labels in zip(first, labels, strict=True)]
        open_ = [i for i, scores in enumerate(found) if scores is None]
        replies = await self._aask(self.model, [prompts[i] for i in open_], [configs[i] for i in open_])
        return self._with_named(found, first, labels, zip(open_, replies, strict=True))

    def _with_named(
        self,
        found: Sequence[LabelScores | Exception | None],
        first: Sequence[Any],
        labels: Sequence[Sequence[str]],
        written: Iterable[tuple[int, Any]],
    ) -> list[LabelScores | Exception]:
        """What was found, and for the rest what the written answers name."""
        answers = list(found)
        for i, reply in written:
            answers[i] = _named(_completion(reply), labels[i], None if first[i] is None else _cost(first[i]))
            # a model that answers, but never with log-probabilities, need not be asked for them again
            if _gives_none(first[i]) and not isinstance(reply, Exception):
                self._scoring = None
        return [answer for answer in answers if answer is not None]

    def _ask(self, model: Runnable[Any, Any], prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None) -> list[Any]:
        each = list(_one_each(prompts, configs))
        if self.max_concurrency is not None:
            each = [{**config, "max_concurrency": self.max_concurrency} for config in each]
        return model.batch([list(prompt) for prompt in prompts], each, return_exceptions=True)

    async def _aask(
        self, model: Runnable[Any, Any], prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None
    ) -> list[Any]:
        slots = self._slots_of_loop()

        async def ask(prompt: Prompt, config: RunnableConfig) -> Any:
            async with slots:
                try:
                    return await model.ainvoke(list(prompt), config)
                except Exception as error:
                    return error

        return await asyncio.gather(*map(ask, prompts, _one_each(prompts, configs)))

    def _slots_of_loop(self) -> asyncio.Semaphore:
        """Shared by all calls in this event loop; a semaphore belongs to one loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            self._slots[loop] = asyncio.Semaphore(self.max_concurrency or 1_000_000)
        return self._slots[loop]


def _one_each(prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None) -> Sequence[RunnableConfig]:
    return [{} for _ in prompts] if configs is None else configs


def _message(reply: Any) -> Any:
    """The model's message; of a structured reply the raw one."""
    return reply.get("raw") if isinstance(reply, dict) else reply


def _cost(reply: Any) -> Cost:
    usage = getattr(_message(reply), "usage_metadata", None) or {}
    return Cost(1, usage.get("input_tokens"), usage.get("output_tokens"))


def _completion(reply: Any) -> Completion | Exception:
    if isinstance(reply, Exception):
        return reply
    message = _message(reply)
    parsed = reply.get("parsed") if isinstance(reply, dict) else None
    if parsed is not None:
        import json

        text = parsed.model_dump_json() if isinstance(parsed, BaseModel) else json.dumps(parsed)
    elif isinstance(message, AIMessage):
        text = str(message.text)
    elif isinstance(message, str):
        text = message
    else:
        return RagkitError(f"llm: the model answered with {type(message).__name__} in place of a message")
    return Completion(text, _cost(reply))


def _reported(reply: Any, labels: Sequence[str]) -> LabelScores | Exception | None:
    """Scores from the log-probabilities of a reply, its error, or None if the answer has to be written out."""
    if isinstance(reply, Exception):
        return None if _refuses(reply) else reply
    tokens = first_tokens(reply.response_metadata) if isinstance(reply, AIMessage) else None
    scores = from_tokens(tokens or (), labels)
    return LabelScores(scores, _cost(reply)) if max(scores, default=0.0) > -math.inf else None


def _refuses(error: Exception) -> bool:
    """Whether a model may have failed because it does not know the parameters that ask for log-probabilities."""
    return isinstance(error, TypeError | ValueError) or getattr(error, "status_code", None) in _REFUSED


def _gives_none(reply: Any) -> bool:
    if isinstance(reply, Exception):
        return True
    return isinstance(reply, AIMessage) and first_tokens(reply.response_metadata) is None


def _named(answer: Completion | Exception, labels: Sequence[str], spent: Cost | None) -> LabelScores | Exception:
    if isinstance(answer, Exception):
        return answer
    at = named(answer.text, labels)
    if at is None:
        return RagkitError(f"the answer names none, or more than one, of the labels {list(labels)}: {answer.text[:80]!r}")
    return LabelScores(of_named(at, labels), _sum(answer.cost, spent) if spent else answer.cost, parsed=True)


def _sum(one: Cost, other: Cost) -> Cost:
    known = (one.prompt_tokens, other.prompt_tokens), (one.completion_tokens, other.completion_tokens)
    prompt, completion = (None if a is None and b is None else (a or 0) + (b or 0) for a, b in known)
    return Cost(one.calls + other.calls, prompt, completion)


def _identity(model: Any) -> str:
    if isinstance(model, BaseChatModel):
        if not model.is_lc_serializable() and not model._identifying_params:
            raise InputError(f"name: {type(model).__name__} does not say what tells it from others; pass a name")
        return f"{type(model).__qualname__} {model._get_llm_string()}"
    if isinstance(model, RunnableBindingBase):
        kwargs = dict(sorted(model.kwargs.items()))
        return f"{_identity(model.bound)} {kwargs}" if kwargs else _identity(model.bound)
    raise InputError(f"name: {type(model).__name__} does not say what tells it from others; pass a name")
