"""Writing in the margins of long inputs: a model notes segment by segment what matters, and the answer is made from that."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from ragkit.chains.context import GroundedContext, Ranked, StageTrace
from ragkit.chains.grounding import ground
from ragkit.chains.margin_notes import MarginNote, NotedContext, NotedSpan, evidence_for, read_note, shown_notes
from ragkit.chains.margin_segments import read_units, segments_of
from ragkit.documents.provenance import StageResult, ensure_id, provenance, with_stages
from ragkit.documents.spans import inside
from ragkit.documents.tokens import RegexTokenizer, Tokenizer
from ragkit.encoders.languages import iso_code
from ragkit.errors import InputError
from ragkit.llms.base import Completion, Cost, DeadlineError, RequestError, cost_of
from ragkit.llms.budget import Budget, Spending
from ragkit.llms.forecast import count_tokens
from ragkit.llms.threads import seconds_left
from ragkit.pruners.base import Pruner
from ragkit.pruners.extractive import ExtractivePruner
from ragkit.quoting import quoted
from ragkit.retrievers.overlap import bm25_scores
from ragkit.retrievers.rewriting import model_of, template_of

_log = logging.getLogger(__name__)

STAGE = "margins"
"""Name under which the reading is traced."""


class MarginReader:
    """Reads documents of any length for one question, after "Writing in the Margins" (Russak et al., 2024, arXiv:2408.14906).

    They are cut into segments; of each, the model says whether it is useful, and notes what it says on the question. Of a useful
    one, the sentences that the note rests on are kept. Where the model fails, is late, gives no verdict or notes what the segment
    does not say, and where the budget ends, the `pruner` chooses from that segment. So what is kept are sentences of the
    documents, verbatim, and a note is never more than a hint.

    `read` gives a `MarginNote` for each segment as it comes, the most promising ones (BM25) asked first, and at last the
    `NotedContext`, in the order of the text. All ways of reading give the same, as far as no budget ends them.
    """

    def __init__(
        self,
        llm: Any,
        *,
        pruner: Pruner | None = None,
        prompt: str | Path = "margin",
        size: int = 1500,
        sentences: int = 5,
        budget: Budget | None = None,
        max_concurrency: int = 8,
        max_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
        language: str = "english",
    ) -> None:
        """`size` are tokens of a segment, `sentences` the most that are kept for a note, `max_tokens` those of the context with
        its notes, by `tokenizer`; `budget` is for one reading. The default pruner is `ExtractivePruner(scorer="bm25")`.

        Raises `InputError` for a model, a prompt or a number that cannot be used.
        """
        for name, value in (("size", size), ("sentences", sentences), ("max_concurrency", max_concurrency)):
            if value <= 0:
                raise InputError(f"{name}: must be at least 1, not {value!r}")
        if max_tokens is not None and max_tokens <= 0:
            raise InputError(f"max_tokens: must be positive, not {max_tokens!r}; None sets no limit")
        self._llm, self._template = model_of(llm), template_of(prompt, frozenset({"question", "segment"}))
        self._pruner = ExtractivePruner(scorer="bm25", language=language) if pruner is None else pruner
        self._size, self._sentences, self._max_tokens = size, sentences, max_tokens
        self._budget, self._most = budget or Budget(), max_concurrency
        self._tokenizer = tokenizer or RegexTokenizer()
        self.language = language

    def read(
        self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None
    ) -> Iterator[MarginNote | NotedContext]:
        """The notes as they come, and at last the context. Closing the iterator sends nothing more."""
        reading = _Reading(self, question, documents)
        answers: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

        def ask(at: int, prompt: list[BaseMessage]) -> None:
            try:
                [answer] = self._llm.generate([prompt], [config or {}], reading.until)
            except BaseException as error:  # whatever ends the thread, somebody waits for its answer
                answer = error if isinstance(error, Exception) else RequestError(type(error).__name__, Cost())
            answers.put((at, answer))

        while True:
            for at, prompt in reading.start():
                run = contextvars.copy_context().run
                # a daemon, as a request that hangs must not keep the interpreter from ending
                threading.Thread(target=run, args=(ask, at, prompt), daemon=True, name="ragkit-margin").start()
            if not reading.running:
                break
            try:
                note = reading.take(*answers.get(timeout=seconds_left(reading.until)))
            except queue.Empty:
                break
            yield note
        yield from reading.rest()
        pruned = self._pruner.outcomes([reading.for_pruner()], [config or {}]) if reading.left_over else []
        yield reading.context([document for outcome in pruned for document in outcome.documents])

    async def aread(
        self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None
    ) -> AsyncGenerator[MarginNote | NotedContext]:
        """Async form of `read`; what is under way is cancelled with it, and at the deadline."""
        reading = await asyncio.to_thread(_Reading, self, question, documents)
        tasks: dict[asyncio.Task[Any], int] = {}
        try:
            while True:
                for at, prompt in reading.start():
                    tasks[asyncio.create_task(self._aask(prompt, config, reading.until))] = at
                if not tasks:
                    break
                left = seconds_left(reading.until)
                done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in sorted(done, key=tasks.__getitem__):
                    yield reading.take(tasks.pop(task), task.result())
        finally:
            for task in tasks:
                task.cancel()
        for note in reading.rest():
            yield note
        pruned = await self._pruner.aoutcomes([reading.for_pruner()], [config or {}]) if reading.left_over else []
        yield await asyncio.to_thread(reading.context, [document for outcome in pruned for document in outcome.documents])

    def context(self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None) -> NotedContext:
        """What `read` gives at last."""
        *_, last = self.read(question, documents, config)
        assert isinstance(last, NotedContext)
        return last

    async def acontext(self, question: str, documents: Sequence[Document], config: RunnableConfig | None = None) -> NotedContext:
        """Async form of `context`."""
        last: Any = None
        async for piece in self.aread(question, documents, config):
            last = piece
        assert isinstance(last, NotedContext)
        return last

    async def _aask(self, prompt: list[BaseMessage], config: RunnableConfig | None, until: float | None) -> Any:
        try:
            [answer] = await self._llm.agenerate([prompt], [config or {}], until)
        except Exception as error:
            return error
        return answer


class _Reading:
    """One question on its way through the segments: what to ask next, what was noted, and the context in the end."""

    def __init__(self, reader: MarginReader, question: str, documents: Sequence[Document]) -> None:
        self._reader, self._question = reader, question
        self._began = time.perf_counter()
        self._documents = list({document.id: document for document in map(ensure_id, reversed(documents))}.values())[::-1]
        self._long = read_units(self._documents, iso_code(reader.language))
        self._segments = segments_of(self._long, reader._tokenizer, reader._size)
        self.until = reader._budget.deadline()
        self._spending = Spending(reader._budget)
        texts = ["\n\n".join(map(self._long.text, segment)) for segment in self._segments]
        promise = bm25_scores(question, texts, reader.language)
        self._prompts = [reader._template.format_messages(question=quoted(question), segment=quoted(text)) for text in texts]
        self._waiting = np.argsort(-promise, kind="stable").tolist()
        limited = reader._budget.max_tokens is not None
        self._costs = count_tokens(reader._llm, self._prompts) if limited and texts else [0] * len(texts)
        self.running: set[int] = set()
        self._notes: dict[int, MarginNote] = {}
        self._kept: dict[tuple[int, int], float] = {}
        """The score of each unit that is kept, by its document and its number there."""
        self._failures = 0
        self._stopped: str | None = None

    def start(self) -> list[tuple[int, list[BaseMessage]]]:
        """The segments to be asked about now, with their prompts: as many as are free, and as the budget allows."""
        started = []
        while self._waiting and not self._stopped and len(self.running) < self._reader._most:
            at = self._waiting[0]
            under_way = sum(self._costs[one] for one in self.running)
            if seconds_left(self.until) == 0:
                self._stopped = "deadline"
            else:
                limited = self._reader._budget.max_tokens is not None
                plan = Cost(len(self.running) + 1, under_way + self._costs[at] if limited else None)
                self._stopped = self._spending.lacks(plan)
            if not self._stopped:
                self._waiting.pop(0)
                self.running.add(at)
                started.append((at, self._prompts[at]))
        return started

    def take(self, at: int, answer: Completion | Exception) -> MarginNote:
        """What an answer says of its segment."""
        self.running.discard(at)
        self._spending.spend(cost_of(answer), answered=not isinstance(answer, Exception))
        try:
            if isinstance(answer, Exception):
                raise answer
            said = read_note(answer.text)
            if said is None:
                return self._note(at, useful=False)
            units = [(part.document, unit) for part in self._segments[at] for unit in part.units]
            sentences = [sentence for part in self._segments[at] for sentence in self._long.sentences(part)]
            scores = evidence_for(said, sentences, self._reader.language, self._reader._sentences)
            self._kept |= {unit: score for unit, score in zip(units, scores, strict=True) if score > 0}
            return self._note(at, useful=True, text=said)
        except Exception as error:
            self._failures += 1
            if isinstance(error, DeadlineError):
                self._stopped = "deadline"
            return self._note(at, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def rest(self) -> list[MarginNote]:
        """The notes on segments that nobody has read, or of which no answer came in time."""
        late = sorted(self.running)
        if late:
            self._stopped = "deadline"
        self._spending.spend(Cost(len(late)), answered=False)
        self._failures += len(late)
        self.running.clear()
        why = f"the budget ended the reading ({self._stopped})"
        left = [self._note(at, problem=why) for at in sorted([*late, *self._waiting])]
        self._waiting.clear()
        if self.left_over:
            _log.warning("%r: %d of %d segments are left to the pruner", self._question, len(self.left_over), len(self._segments))
        return left

    @property
    def left_over(self) -> list[int]:
        """The segments that the pruner has to deal with."""
        return [at for at, note in sorted(self._notes.items()) if note.useful is None]

    def for_pruner(self) -> Any:
        """What is left over, part by part."""
        parts = [part for at in self.left_over for part in self._segments[at]]
        cuts = [(part, self._long.cut(part, part.units)) for part in parts]
        return {
            "query": self._question,
            "documents": [cut.model_copy(update={"id": f"{part.document} {part.units[0]}"}) for part, cut in cuts],
        }

    def context(self, pruned: Sequence[Document]) -> NotedContext:
        """The context, given what the pruner has kept of what was left over."""
        reader = self._reader
        kept = {**self._kept, **self._pruned(pruned)}
        documents = []
        for part in (part for segment in self._segments for part in segment):
            scores = {unit: kept[part.document, unit] for unit in part.units if (part.document, unit) in kept}
            if scores:
                documents.append(self._long.cut(part, [*scores], scores))
        documents = [with_stages(one, StageResult(STAGE, None, rank)) for rank, one in enumerate(documents, 1)]
        notes = tuple(self._notes[at] for at in sorted(self._notes))
        most = None if reader._max_tokens is None else reader._max_tokens // 2
        shown, spent = shown_notes(notes, reader._tokenizer, most)
        grounded = ground(
            self._question,
            documents,
            reader._tokenizer,
            whole=self._documents,
            max_tokens=None if reader._max_tokens is None else reader._max_tokens - spent,
            trace=[self._trace(documents)],
        )
        return NotedContext(**_fields(grounded), notes=notes, shown=shown)

    def _pruned(self, documents: Sequence[Document]) -> dict[tuple[int, int], float]:
        """The score of each unit that the pruner has kept."""
        kept = {}
        for document in documents:
            record, (number, first) = provenance(document), map(int, str(document.id).split())
            for at, unit in enumerate(record.units or ()):
                if inside(unit, record.spans or ()):
                    kept[number, first + at] = record.unit_scores[at] if record.unit_scores else 0.0
        return kept

    def _trace(self, documents: Sequence[Document]) -> StageTrace:
        notes = self._notes.values()
        usage: dict[str, Any] = {
            "segments": len(self._segments),
            "useful": sum(note.useful is True for note in notes),
            "pruned": len(self.left_over),
            **self._spending.usage,
            "failures": self._failures,
        }
        if self._stopped:
            usage["stopped"] = self._stopped
        ranked = tuple(dict.fromkeys(Ranked(str(document.id), None) for document in documents))
        return StageTrace(STAGE, time.perf_counter() - self._began, len(self._documents), ranked, usage)

    def _note(self, at: int, useful: bool | None = None, text: str = "", problem: str | None = None) -> MarginNote:
        spans = []
        for part in self._segments[at]:
            units = self._long.units[part.document]
            begins, ends = units[part.units[0]].start, units[part.units[-1]].end
            spans.append(NotedSpan(str(self._documents[part.document].id), begins, ends))
        self._notes[at] = MarginNote(at + 1, len(self._segments), tuple(spans), useful, text, problem)
        return self._notes[at]


def _fields(context: GroundedContext) -> dict[str, Any]:
    return {one.name: getattr(context, one.name) for one in fields(context)}
