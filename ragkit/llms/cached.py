"""Remembers a language model's answers in a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage

from ragkit.llms.answers import AnswerTable
from ragkit.llms.base import Completion, Cost, DeadlineError, LabelScores, Prompt, RequestError, TextScore
from ragkit.llms.wrapped import Configs, Given, Until, Wrapped

_VERSION = 2
_IGNORED = {"id", "response_metadata", "usage_metadata"}  # of messages: says where they come from, not what they say


class Cached(Wrapped):
    """A language model that is not asked twice: not for a prompt answered before, nor for one that occurs twice in a call.

    An answer is found by the model's name, its parameters, the prompt and the labels. `name` is needed where the model does not
    say what tells it from others (`InputError`), and replaces what it says. Failures are not stored. `Cost.cached` marks
    answers from the cache, which say the tokens they once took. Threads and processes may share a file; a damaged one is
    a `RagkitError`.
    """

    def __init__(self, llm: Any, path: str | Path, name: str | None = None) -> None:
        super().__init__(llm)
        self.name = super().identity if name is None else name
        self._table = AnswerTable(path)

    @property
    def identity(self) -> str:
        """The name under which answers are kept."""
        return self.name

    def __len__(self) -> int:
        """How many answers the file holds, those of other models included."""
        return len(self._table)

    def _answers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        batch = _Batch(self.name, ability, prompts, given)
        known = self._table.get(batch.keys)
        asked = batch.unknown(known)
        if asked:
            found = self._inner(ability, *batch.requests(asked, configs), until)
            self._table.put(batch.storable(asked, found))
            return batch.joined(known, asked, found)
        return batch.joined(known, (), ())

    async def _aanswers(self, ability: str, prompts: Sequence[Prompt], given: Given, configs: Configs, until: Until) -> Any:
        batch = _Batch(self.name, ability, prompts, given)
        known = await asyncio.to_thread(self._table.get, batch.keys)
        asked = batch.unknown(known)
        if asked:
            found = await self._ainner(ability, *batch.requests(asked, configs), until)
            await asyncio.to_thread(self._table.put, batch.storable(asked, found))
            return batch.joined(known, asked, found)
        return batch.joined(known, (), ())


class _Batch:
    """The requests of one call, and which of them have to be asked."""

    def __init__(self, name: str, ability: str, prompts: Sequence[Prompt], given: Given) -> None:
        self._prompts, self._given = prompts, given
        each = given or [None] * len(prompts)
        self.keys = [_key(name, ability, prompt, its) for prompt, its in zip(prompts, each, strict=True)]

    def unknown(self, known: dict[str, Any]) -> list[int]:
        """The first request of each key that has no answer."""
        first = {key: i for i, key in reversed(list(enumerate(self.keys))) if key not in known}
        return sorted(first.values())

    def requests(self, asked: Sequence[int], configs: Configs) -> tuple[list[Prompt], Given, Configs]:
        """The arguments that ask for these."""
        given = None if self._given is None else [self._given[i] for i in asked]
        return [self._prompts[i] for i in asked], given, None if configs is None else [configs[i] for i in asked]

    def storable(self, asked: Sequence[int], found: Sequence[Any]) -> dict[str, Any]:
        """The answers that are no failures, by key."""
        return {
            self.keys[i]: _packed(answer) for i, answer in zip(asked, found, strict=True) if not isinstance(answer, Exception)
        }

    def joined(self, known: dict[str, Any], asked: Sequence[int], found: Sequence[Any]) -> list[Any]:
        """One answer per request; of equal requests only the first counts as a call."""
        fresh = dict(zip(asked, found, strict=True))
        by_key = {self.keys[i]: answer for i, answer in fresh.items()}
        return [
            fresh[i] if i in fresh else _unpacked(known[key]) if key in known else _again(by_key[key])
            for i, key in enumerate(self.keys)
        ]


def _key(name: str, ability: str, prompt: Prompt, given: Any) -> str:
    said = [
        _VERSION,
        name,
        ability,
        [_said(message) for message in prompt],
        given if given is None or isinstance(given, str) else list(given),
    ]
    return sha256(json.dumps(said, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def _said(message: BaseMessage) -> dict[str, Any]:
    return message.model_dump(exclude=_IGNORED)


def _packed(answer: Any) -> list[Any]:
    what, cost = answer
    return [what, list(cost[:3])]


def _unpacked(value: list[Any]) -> Completion | LabelScores | TextScore:
    what, cost = value
    spent = Cost(*cost)._replace(cached=True)
    if isinstance(what, list):
        return LabelScores(tuple(what), spent)
    return Completion(what, spent) if isinstance(what, str) else TextScore(what, spent)


def _again(answer: Any) -> Any:
    """An answer once more; the failure of a request that was not repeated costs nothing."""
    if isinstance(answer, DeadlineError):
        return DeadlineError()
    if isinstance(answer, Exception):
        return RequestError(f"{type(answer).__name__}: {answer}", Cost(0))
    return answer._replace(cost=answer.cost._replace(cached=True))
