"""Many questions to a pipeline, by many workers: retrieval, LLM reranking, pruning, and what an evaluation needs of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ragkit.bulk.workers import Workers
from ragkit.chains.pipeline import Pipeline
from ragkit.corpus.filters import Filter
from ragkit.documents.files import several
from ragkit.errors import InputError, RagkitError
from ragkit.progress import Told

AT_ONCE = 16
"""Questions that a worker answers together, and at most those that are asked again when it is lost."""


def retrieve_many(
    make: Callable[[], Pipeline],
    questions: Sequence[str],
    workers: Workers,
    *,
    k: int | None = None,
    filter: Filter | None = None,
    at_once: int = AT_ONCE,
    progress: Told | None = None,
) -> list[Any]:
    """`Pipeline.batch` of all questions, with `return_exceptions`: documents, or an exception, for each, in order.

    `make` gives the pipeline, once in each worker, and must be picklable, such as `functools.partial(Pipeline.from_config,
    "pipeline.yaml", store="index")`. The result is that of the pipeline itself, up to the rounding that batches of another size
    bring. Raises `InputError` for a question that is no string, and what `make` raises.
    """
    return _ask(_Ask(make, "batch", {"k": k, "filter": filter}), questions, workers, at_once, progress)


def ground_many(
    make: Callable[[], Pipeline],
    questions: Sequence[str],
    workers: Workers,
    *,
    max_tokens: int | None = None,
    max_passages: int | None = None,
    k: int | None = None,
    filter: Filter | None = None,
    at_once: int = AT_ONCE,
    progress: Told | None = None,
) -> list[Any]:
    """`Pipeline.ground_batch`, as `retrieve_many` is `Pipeline.batch`: for each question a `GroundedContext`, or an exception."""
    options = {"max_tokens": max_tokens, "max_passages": max_passages, "k": k, "filter": filter}
    return _ask(_Ask(make, "ground_batch", options), questions, workers, at_once, progress)


@dataclass(frozen=True)
class _Ask:
    make: Callable[[], Pipeline]
    method: Literal["batch", "ground_batch"]
    options: dict[str, Any] = field(hash=False)

    @cached_property
    def _pipeline(self) -> Pipeline:
        return self.make()

    def __call__(self, questions: list[str]) -> list[Any]:
        answers = getattr(self._pipeline, self.method)(questions, return_exceptions=True, **self.options)
        return [_portable(answer) for answer in answers]


def _ask(ask: _Ask, questions: Sequence[str], workers: Workers, at_once: int, progress: Told | None) -> list[Any]:
    if at_once < 1:
        raise InputError(f"at_once: must be at least 1, not {at_once}")
    questions = several(questions, "questions")
    for question in questions:
        if not isinstance(question, str):
            raise InputError(f"questions: must be strings, not {type(question).__name__}")
    chunks = [questions[start : start + at_once] for start in range(0, len(questions), at_once)]
    answers: list[list[Any]] = [[] for _ in chunks]
    for number, its_answers in workers.map(ask, chunks):
        answers[number] = its_answers
        if progress is not None:
            progress(sum(map(len, answers)), len(questions))
    if any(len(its) != len(chunk) for its, chunk in zip(answers, chunks, strict=True)):
        raise RagkitError("questions were lost by the workers; ask again")
    return [answer for its_answers in answers for answer in its_answers]


def _portable(answer: Any) -> Any:
    """The answer; an exception that does not survive pickling as one that says the same."""
    if isinstance(answer, Exception):
        try:
            pickle.loads(pickle.dumps(answer))
        except Exception:
            return RagkitError(f"{type(answer).__name__}: {answer}")
    return answer
