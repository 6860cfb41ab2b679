"""Any LangChain chat model as a language model of ragkit: concurrent, cancellable, its usage counted."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import Completion, Cost, DeadlineError, LabelScores, Prompt, RequestError, cost_of, total
from ragkit.llms.labels import first_tokens, from_tokens
from ragkit.llms.threads import run_until, seconds_left

_log = logging.getLogger(__name__)

_REFUSED = (400, 404, 422)  # what HTTP answers to a parameter that a model does not take
_PARAMETER = re.compile(r"logprobs|(?:unsupported|unexpected|unknown|unrecognized)\b.*max_\w*tokens", re.IGNORECASE | re.DOTALL)
_Found = LabelScores | Completion | Exception


class _Loop:
    """What the calls in one event loop share, as locks and semaphores belong to one loop."""

    def __init__(self, slots: int | None) -> None:
        self.slots = asyncio.Semaphore(slots or 1_000_000)
        self.probing = asyncio.Lock()


class ChatLLM:
    """Implements `Generates` and `ScoresLabels` over a chat model, or over a Runnable around one (`with_retry`, fallbacks).

    `max_concurrency` is the most requests that are under way at once: in each call when sync, in all of an event loop
    together when async; None sets no limit but that of 64 threads. Retries, rate limits and timeouts are the model's own: no
    request is repeated that could be answered.

    Labels are scored by the `top_logprobs` likeliest first tokens. Whether the provider reports them is found out with one
    request, which others wait for, and then known for this object: if it refuses, leaves them out, or none of them spells a
    label, a warning is logged, and from then on, that request included, the model is asked for a written answer. With None it
    always is.
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
        self.top_logprobs = top_logprobs
        self._scoring = model.bind(logprobs=True, top_logprobs=top_logprobs, max_tokens=1)
        self._scores = None if top_logprobs else False
        """Whether the provider gives log-probabilities; None as long as that is not known."""
        self._probing = threading.Lock()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    @property
    def identity(self) -> str:
        """What tells the model and its parameters from others, as LangChain's own cache does.

        Raises `InputError` if the model does not say: an answer of one model must not pass for one of another.
        """
        return f"chat {_identity(self.model)} top_logprobs={self.top_logprobs}"

    @property
    def probes(self) -> int:
        """How many requests more than prompts the next scoring of labels may take, to find out how they can be scored."""
        return int(self._scores is None)

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> list[Completion | Exception]:
        """See `Generates`; requests that wait at the deadline never start."""
        return [_completion(reply) for reply in self._ask(self.model, prompts, configs, until)]

    async def agenerate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> list[Completion | Exception]:
        """See `Generates`; requests under way are cancelled with it and at the deadline, and those that wait never start."""
        return [_completion(reply) for reply in await self._aask(self.model, prompts, configs, until)]

    def score_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[_Found]:
        """See `ScoresLabels`."""
        configs = _one_each(prompts, configs)
        first = self._probe(prompts[:1], labels[:1], configs[:1], until)
        rest = len(first)
        replies = self._ask(self._scoring if self._scores else self.model, prompts[rest:], configs[rest:], until)
        return [*first, *map(_scored, replies, labels[rest:])]

    async def ascore_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[_Found]:
        """Async form of `score_labels`; cancelled like `agenerate`."""
        configs = _one_each(prompts, configs)
        first = await self._aprobe(prompts[:1], labels[:1], configs[:1], until)
        rest = len(first)
        replies = await self._aask(self._scoring if self._scores else self.model, prompts[rest:], configs[rest:], until)
        return [*first, *map(_scored, replies, labels[rest:])]

    def _probe(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig], until: float | None
    ) -> list[_Found]:
        """The answer to the one prompt if it has to show whether there are log-probabilities; else nothing."""
        left = seconds_left(until)
        if not (self.probes and prompts and self._probing.acquire(timeout=-1 if left is None else left)):
            return []
        try:
            if not self.probes:
                return []
            [reply] = self._ask(self._scoring, prompts, configs, until)
            if self._learn(reply, labels[0]):
                return [_scored(reply, labels[0])]
            [written] = self._ask(self.model, prompts, configs, until)
            return [_again(reply, _completion(written))]
        finally:
            self._probing.release()

    async def _aprobe(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], configs: Sequence[RunnableConfig], until: float | None
    ) -> list[_Found]:
        """Async form of `_probe`."""
        if not (self.probes and prompts):
            return []
        lock = self._of_loop().probing
        try:
            await asyncio.wait_for(lock.acquire(), seconds_left(until))
        except TimeoutError:
            return []
        try:
            if not self.probes:
                return []
            [reply] = await self._aask(self._scoring, prompts, configs, until)
            if self._learn(reply, labels[0]):
                return [_scored(reply, labels[0])]
            [written] = await self._aask(self.model, prompts, configs, until)
            return [_again(reply, _completion(written))]
        finally:
            lock.release()

    def _learn(self, reply: Any, labels: Sequence[str]) -> bool:
        """Take note of what a reply says of the provider; whether it is an answer, so that nothing has to be asked again."""
        if isinstance(reply, Exception):
            refused = _refuses(reply)
            if refused:
                self._give_up(f"the provider refuses them ({' '.join(str(reply).split())[:200]})")
            return not refused  # any other failure says nothing
        if _spelled(reply, labels):
            self._scores = True
        else:
            reported = isinstance(reply, AIMessage) and first_tokens(reply.response_metadata)
            self._give_up("the likeliest first tokens spell no label" if reported else "the provider reports none")
        return bool(self._scores)

    def _give_up(self, reason: str) -> None:
        self._scores = False
        _log.warning("labels are read from written answers from now on, without log-probabilities: %s", reason)

    def _ask(
        self,
        model: Runnable[Any, Any],
        prompts: Sequence[Prompt],
        configs: Sequence[RunnableConfig] | None,
        until: float | None,
    ) -> list[Any]:
        each = zip(prompts, _one_each(prompts, configs), strict=True)
        return run_until([partial(model.invoke, list(prompt), config) for prompt, config in each], self.max_concurrency, until)

    async def _aask(
        self,
        model: Runnable[Any, Any],
        prompts: Sequence[Prompt],
        configs: Sequence[RunnableConfig] | None,
        until: float | None,
    ) -> list[Any]:
        slots = self._of_loop().slots

        async def ask(prompt: Prompt, config: RunnableConfig) -> Any:
            left, late = seconds_left(until), DeadlineError()
            if left == 0:
                return late
            deadline = asyncio.timeout(left)
            try:
                async with deadline, slots:
                    late = DeadlineError(Cost())
                    return await model.ainvoke(list(prompt), config)
            except Exception as error:
                return late if deadline.expired() else error

        return await asyncio.gather(*map(ask, prompts, _one_each(prompts, configs)))

    def _of_loop(self) -> _Loop:
        # a semaphore that somebody waited for knows its loop, and would keep it for good
        for loop in [loop for loop in list(self._loops) if loop.is_closed()]:
            self._loops.pop(loop, None)
        return self._loops.setdefault(asyncio.get_running_loop(), _Loop(self.max_concurrency))


def _one_each(prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None) -> Sequence[RunnableConfig]:
    return [{} for _ in prompts] if configs is None else configs


def _cost(reply: Any) -> Cost:
    usage = getattr(reply, "usage_metadata", None) or {}
    return Cost(1, usage.get("input_tokens"), usage.get("output_tokens"))


def _completion(reply: Any) -> Completion | Exception:
    if isinstance(reply, Exception):
        return reply
    if not isinstance(reply, AIMessage | str):
        return RagkitError(f"llm: the model answered with {type(reply).__name__} in place of a message")
    return Completion(reply if isinstance(reply, str) else str(reply.text), _cost(reply))


def _scored(reply: Any, labels: Sequence[str]) -> _Found:
    """Scores if the reply has the log-probability of a label, else what it says."""
    scores = _spelled(reply, labels)
    return LabelScores(scores, _cost(reply)) if scores else _completion(reply)


def _spelled(reply: Any, labels: Sequence[str]) -> tuple[float, ...] | None:
    """The labels' log-probabilities; None if the reply has none for any of them."""
    tokens = first_tokens(reply.response_metadata) if isinstance(reply, AIMessage) else None
    scores = from_tokens(tokens or (), labels)
    return scores if max(scores, default=-math.inf) > -math.inf else None


def _again(reply: Any, written: Completion | Exception) -> Completion | Exception:
    """The written answer, with what the request for log-probabilities cost before; one that was refused took no tokens."""
    cost = total([Cost(1, 0, 0) if isinstance(reply, Exception) else _cost(reply), cost_of(written)])
    if isinstance(written, DeadlineError):
        return DeadlineError(cost)
    if isinstance(written, Exception):
        failure = RequestError(f"{type(written).__name__}: {written}", cost)
        failure.__cause__ = written
        return failure
    return written._replace(cost=cost)


def _refuses(error: Exception) -> bool:
    """Whether a provider, or its client, says that it does not know the parameters that ask for log-probabilities."""
    of_that_kind = isinstance(error, TypeError | ValueError) or getattr(error, "status_code", None) in _REFUSED
    return of_that_kind and bool(_PARAMETER.search(str(error)))


def _identity(model: Any) -> str:
    if isinstance(model, BaseChatModel):
        if not model.is_lc_serializable() and not model._identifying_params:
            raise InputError(f"name: {type(model).__name__} does not say what tells it from others; pass a name")
        return f"{type(model).__qualname__} {model._get_llm_string()}"
    if isinstance(model, RunnableBindingBase):
        kwargs = dict(sorted(model.kwargs.items()))
        return f"{_identity(model.bound)} {kwargs}" if kwargs else _identity(model.bound)
    raise InputError(f"name: {type(model).__name__} does not say what tells it from others; pass a name")
