"""A local transformers model, causal or encoder-decoder, as a language model of ragkit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from langchain_core.runnables import RunnableConfig

from ragkit.encoders.folder import digest, locate, model_name
from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import Completion, Cost, DeadlineError, LabelScores, Prompt, TextScore
from ragkit.llms.threads import run_until

if TYPE_CHECKING:
    from ragkit.llms.reading import Reader
    from ragkit.llms.rendering import Renderer

DType = Literal["auto", "float32", "bfloat16", "float16"]
_A = TypeVar("_A")


class _Loaded(NamedTuple):
    reader: Reader
    renderer: Renderer
    longest: int | None
    ends: frozenset[int]


@dataclass(frozen=True)
class _Request:
    """A prompt in tokens, with the texts that might follow it; `index` is its place in the call."""

    index: int
    ids: list[int]
    continuations: tuple[list[int], ...] = ()


class LocalLLM:
    """Implements `Generates`, `ScoresLabels` and `ScoresText` with the weights of a folder or a hub name.

    Nothing is loaded before the first request, no code from the folder is run, and only safetensors are read. Prompts go
    through the tokenizer's chat template where it has one; else the messages are joined, and labels follow as the next word.
    Texts are written greedily, up to `max_new_tokens`. `batch_tokens` bounds the tokens of one pass, padding included.
    `window` lowers the most tokens a prompt may have (with its answer, for a causal model); beyond it a prompt has an
    `InputError` for an answer.

    Prompts in one pass share the reading of what they all begin with, labels the reading of their prompt. Costs count the
    prompt's tokens, and those written, or the places behind the prompt at which probabilities were read. Threads may share a
    model; one pass runs at a time, and one that is under way at the deadline is left to itself. Configs are taken and have no
    effect: callbacks, tags and metadata belong to runs of LangChain models, of which there are none here.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: DType = "auto",
        batch_tokens: int = 16384,
        max_new_tokens: int = 256,
        window: int | None = None,
    ) -> None:
        for name, value in (("batch_tokens", batch_tokens), ("max_new_tokens", max_new_tokens), ("window", window)):
            if value is not None and value < 1:
                raise InputError(f"{name}: at least 1, not {value}")
        self.model, self.device, self.dtype = model, device, dtype
        self.batch_tokens, self.max_new_tokens, self.window = batch_tokens, max_new_tokens, window
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def identity(self) -> str:
        """What tells the model and its parameters from others, wherever the files lie."""
        folder = locate(self.model)
        return f"local {model_name(self.model)} {digest(folder)} {self.dtype} {self.max_new_tokens} {self.window}"

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """The tokens of each prompt as the model reads it, 0 for one that it refuses. Loads the model."""
        return [self._count(prompt) for prompt in prompts]

    def generate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> list[Completion | Exception]:
        """See `Generates`."""
        return self._generate(prompts, until, threading.Event())

    async def agenerate(
        self, prompts: Sequence[Prompt], configs: Sequence[RunnableConfig] | None = None, until: float | None = None
    ) -> list[Completion | Exception]:
        """Async form of `generate`, in a thread; cancelling it stops before the next token."""
        return await _in_thread(lambda stop: self._generate(prompts, until, stop))

    def score_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[LabelScores | Exception]:
        """See `ScoresLabels`; a label of several tokens has the sum of their log-probabilities, and need not end there."""
        return self._score(prompts, labels, until, threading.Event())

    async def ascore_labels(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[Sequence[str]],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[LabelScores | Exception]:
        """Async form of `score_labels`, in a thread; cancelling it stops before the next pass."""
        return await _in_thread(lambda stop: self._score(prompts, labels, until, stop))

    def query_likelihood(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[str],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[TextScore | Exception]:
        """See `ScoresText`."""
        return self._score_texts(prompts, continuations, until, threading.Event())

    async def aquery_likelihood(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[str],
        configs: Sequence[RunnableConfig] | None = None,
        until: float | None = None,
    ) -> list[TextScore | Exception]:
        """Async form of `query_likelihood`, in a thread; cancelling it stops before the next pass."""
        return await _in_thread(lambda stop: self._score_texts(prompts, continuations, until, stop))

    def _count(self, prompt: Prompt) -> int:
        try:
            return len(self._load().renderer.prompt(prompt).ids)
        except InputError:
            return 0

    def _generate(self, prompts: Sequence[Prompt], until: float | None, stop: threading.Event) -> list[Completion | Exception]:
        from ragkit.llms.reading import write

        def answer(loaded: _Loaded, batch: list[_Request]) -> list[Completion]:
            texts = write(loaded.reader, [one.ids for one in batch], self.max_new_tokens, loaded.ends, stop.is_set)
            return [
                Completion(loaded.renderer.text(text), Cost(1, len(one.ids), len(text)))
                for one, text in zip(batch, texts, strict=True)
            ]

        return self._answer(prompts, [()] * len(prompts), answer, self.max_new_tokens, until, stop)

    def _score(
        self, prompts: Sequence[Prompt], labels: Sequence[Sequence[str]], until: float | None, stop: threading.Event
    ) -> list[LabelScores | Exception]:
        from ragkit.llms.reading import score

        def answer(loaded: _Loaded, batch: list[_Request]) -> list[LabelScores]:
            scores = score(loaded.reader, [one.ids for one in batch], [one.continuations for one in batch])
            return [LabelScores(tuple(its), _reading_cost(one)) for one, its in zip(batch, scores, strict=True)]

        return self._answer(prompts, labels, answer, 0, until, stop)

    def _score_texts(
        self, prompts: Sequence[Prompt], continuations: Sequence[str], until: float | None, stop: threading.Event
    ) -> list[TextScore | Exception]:
        found = self._score(prompts, [(text,) for text in continuations], until, stop)
        return [one if isinstance(one, Exception) else TextScore(one.scores[0], one.cost) for one in found]

    def _answer(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[str]],
        answer: Callable[[_Loaded, list[_Request]], Sequence[_A]],
        room: int,
        until: float | None,
        stop: threading.Event,
    ) -> list[_A | Exception]:
        """Answers batch by batch; `room` is how many tokens will be written."""
        if not prompts:
            return []
        [loaded] = run_until([self._load], until=until)
        if isinstance(loaded, DeadlineError):
            return [DeadlineError() for _ in prompts]
        if isinstance(loaded, Exception):
            raise loaded
        answers: list[_A | Exception] = []
        requests = []
        for index, (prompt, texts) in enumerate(zip(prompts, continuations, strict=True)):
            try:
                requests.append(self._request(loaded, index, prompt, texts, room))
                answers.append(DeadlineError())
            except InputError as error:
                answers.append(error)
        batches = _batches(requests, self.batch_tokens, room)
        try:
            found = run_until([partial(self._pass, loaded, batch, answer, stop) for batch in batches], 1, until)
        finally:
            stop.set()  # what is still under way has nobody to answer to
        for batch, its in zip(batches, found, strict=True):
            for place, request in enumerate(batch):
                answers[request.index] = its if isinstance(its, Exception) else its[place]
        return answers

    def _pass(
        self,
        loaded: _Loaded,
        batch: list[_Request],
        answer: Callable[[_Loaded, list[_Request]], Sequence[_A]],
        stop: threading.Event,
    ) -> Sequence[_A]:
        """The answers of a batch."""
        with self._lock:
            if stop.is_set():
                raise RagkitError("cancelled")
            try:
                return answer(loaded, batch)
            except RuntimeError as error:  # of torch: above all, no memory left
                reason = " ".join(str(error).split())[:200]
                problem = f"the model failed on {len(batch)} prompts; lower batch_tokens if memory is short: {reason}"
                raise RagkitError(problem) from error

    def _request(self, loaded: _Loaded, index: int, prompt: Prompt, texts: Sequence[str], room: int) -> _Request:
        rendered = loaded.renderer.prompt(prompt)
        request = _Request(index, rendered.ids, tuple(loaded.renderer.continuation(text, rendered) for text in texts))
        behind = max([room, *map(len, request.continuations)]) if loaded.reader.counts_answer else 0
        if loaded.longest is not None and len(rendered.ids) + behind > loaded.longest:
            answer = f" and {behind} of the answer" if behind else ""
            raise InputError(
                f"llm: {len(rendered.ids)} tokens of prompt{answer} do not fit into the {loaded.longest} of "
                f"{model_name(self.model)}; use fewer or shorter passages"
            )
        return request

    def _load(self) -> _Loaded:
        if self._loaded is not None:  # without the lock, which a pass may hold for long
            return self._loaded
        with self._lock:
            if self._loaded is None:
                from ragkit.llms.rendering import Renderer
                from ragkit.llms.weights import load_reader

                folder = locate(self.model)
                reader = load_reader(folder, self.device, self.dtype)
                longest = min((limit for limit in (reader.longest, self.window) if limit), default=None)
                ends = _ends(reader.network)
                self._loaded = _Loaded(reader, Renderer(folder, causal=reader.counts_answer), longest, ends)
            return self._loaded


def _batches(requests: Sequence[_Request], tokens: int, room: int) -> list[list[_Request]]:
    """Requests in batches of at most so many tokens, padding included; those that begin alike are neighbours."""
    batches: list[list[_Request]] = []
    longest = 0
    for request in sorted(requests, key=lambda one: one.ids):
        length = len(request.ids) + max([room, *map(len, request.continuations)])
        if batches and max(longest, length) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(request)
            longest = max(longest, length)
        else:
            batches.append([request])
            longest = length
    return batches


def _reading_cost(request: _Request) -> Cost:
    """One place right behind the prompt for all continuations, and one more for every further token of each."""
    places = sum(len(tokens) - 1 for tokens in request.continuations)
    return Cost(1, len(request.ids), places + bool(request.continuations))


def _ends(network: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = network.generation_config.eos_token_id
    ends = network.config.eos_token_id if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


async def _in_thread(work: Callable[[threading.Event], list[_A]]) -> list[_A]:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()
