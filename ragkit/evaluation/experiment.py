"""Systems run over questions: what every stage of every system made of each question, as plain data.

runs = run_systems(questions, [System("mine", pipeline, {"k": 20})], alone=50)
runs[0].traced["q1"].ranking()         # ids, best first
runs[0].traced["q1"].steps[0].seconds  # of the questions that were asked one at a time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.retrievers import BaseRetriever

from ragkit.chains.context import GroundedContext, StageTrace
from ragkit.chains.pipeline import Pipeline
from ragkit.documents.spans import Span
from ragkit.errors import InputError
from ragkit.evaluation.finished import Finished
from ragkit.provence.stage import ProvenceStage
from ragkit.pruners.base import Pruner
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.cascade import CascadeReranker

Kind = Literal["retrieve", "rerank", "prune", "other"]
Progress = Callable[[int, int], None]

ALONE = 50
"""Questions that are asked one at a time, and so have a time."""
_CHUNK = 16  # questions at a time, and at most those that an interruption loses


@dataclass(frozen=True)
class System:
    """A pipeline to be measured. Systems share what their pipelines share: a store, an encoder, a model, a cache of answers."""

    name: str
    pipeline: Pipeline
    settings: Mapping[str, Any]
    """All that its results depend on beside questions and ragkit's own files, as JSON: corpus, indexes, configuration."""
    recalled: Callable[[], int] = int
    """How many answers caches of language models have given so far, as `Charged` counts them; none if not given."""


class Step(NamedTuple):
    """What one stage made of one question."""

    name: str
    kind: Kind
    ids: tuple[str, ...]
    """The documents that came out, best first."""
    scores: tuple[float | None, ...]
    """Their scores then, [ids]."""
    seconds: float | None
    """None for a question that was asked together with others, or of which an answer was recalled from a cache."""
    usage: Mapping[str, Any]
    """What the stage says of its cost, where it is a number or a word: calls, prompt_tokens, completion_tokens, failures, ..."""


class Shown(NamedTuple):
    """What the context shows of a document."""

    id: str
    text: str
    spans: tuple[Span, ...]
    """Its slices of the document's text, in characters; of a text that a foreign stage has changed they mean nothing."""


@dataclass(frozen=True)
class Traced:
    """One question's way through one system."""

    steps: tuple[Step, ...]
    chosen: tuple[str, ...]
    """The documents that reached the first pruner, or the end if there is none: at most the pipeline's k."""
    shown: tuple[Shown, ...]
    """The context, in its order: what pruning and the token budget have left of those."""
    tokens_retrieved: int
    tokens_kept: int

    def ranking(self, stages: int | None = None) -> list[str]:
        """All documents, as ranked after so many stages (default: all of them).

        What a stage put out comes first; what it left out follows, in the order of the stage before. So a stage that passes on
        five documents is judged by how it orders them, and by what it throws away, but not by how many a prompt has room for.
        """
        ranked: tuple[str, ...] = ()
        for step in self.steps[:stages]:
            ranked = tuple(dict.fromkeys((*step.ids, *ranked)))
        return list(ranked)

    @property
    def seconds(self) -> float | None:
        """Of all stages together; None if one of them has no time."""
        times = [step.seconds for step in self.steps]
        return None if None in times else sum(time for time in times if time is not None)

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable; the inverse is `from_json`."""
        return {
            "steps": [[*step[:5], dict(step.usage)] for step in self.steps],
            "chosen": self.chosen,
            "shown": self.shown,
            "tokens": [self.tokens_retrieved, self.tokens_kept],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Traced:
        """What `to_json` wrote, JSON or not."""
        return cls(
            steps=tuple(
                Step(name, kind, tuple(ids), tuple(scores), seconds, dict(usage))
                for name, kind, ids, scores, seconds, usage in data["steps"]
            ),
            chosen=tuple(data["chosen"]),
            shown=tuple(Shown(id_, text, tuple((start, end) for start, end in spans)) for id_, text, spans in data["shown"]),
            tokens_retrieved=data["tokens"][0],
            tokens_kept=data["tokens"][1],
        )


@dataclass(frozen=True)
class Run:
    """What one system made of all questions, by question id in the order asked."""

    name: str
    traced: Mapping[str, Traced]

    def rankings(self, stages: int | None = None) -> dict[str, list[str]]:
        """See `Traced.ranking`."""
        return {id_: traced.ranking(stages) for id_, traced in self.traced.items()}


def run_systems(
    questions: Mapping[str, str],
    systems: Sequence[System],
    *,
    alone: int = ALONE,
    finished: Finished | None = None,
    progress: Progress | None = None,
) -> list[Run]:
    """Ask every system every question (text by id), and say what each of its stages did; one run per system, in order.

    So many questions as `alone` says, spread evenly over all, are asked one at a time: these are timed, after a last question
    that is not, and with nothing remembered of earlier ones. The others go through in batches, and have no time. All
    systems take turns at each few questions, so that a machine that becomes slower does so for all of them alike.

    What is in `finished` is not asked again; what is new is kept there as it comes. A question to which a language model's
    answer was recalled from a cache has its cost but no time. `progress` is told of how many systems times questions are done.
    Raises `InputError` if two systems have one name, or there is no question.
    """
    names = [system.name for system in systems]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"systems: the name {name!r} is given twice; every system needs its own")
    if not questions:
        raise InputError("questions: there are none, so nothing can be measured")
    found: list[dict[str, Traced]] = [{} for _ in systems]
    warm: set[str] = set()
    total = len(questions) * len(systems)
    for ids, timed in _chunks(list(questions), alone):
        texts = {id_: questions[id_] for id_ in ids}
        for system, its_found in zip(systems, found, strict=True):
            key = (system.settings, list(texts.items()), timed)
            known = None if finished is None else finished.get(*key)
            if known is None:
                if timed and system.name not in warm:
                    system.pipeline.ground(list(questions.values())[-1])  # loads and compiles what the first question needs
                    warm.add(system.name)
                known = _ask(system, texts, timed)
                if finished is not None:
                    finished.put(known, *key)
            its_found.update((id_, Traced.from_json(traced)) for id_, traced in known.items())
            if progress is not None:
                progress(sum(map(len, found)), total)
    return [Run(name, {id_: its_found[id_] for id_ in questions}) for name, its_found in zip(names, found, strict=True)]


def _chunks(ids: Sequence[str], alone: int) -> Iterator[tuple[list[str], bool]]:
    """Questions that go together, and whether each of them is asked alone."""
    sample = [ids[at * len(ids) // alone] for at in range(alone)] if alone < len(ids) else list(ids)
    rest = [id_ for id_ in ids if id_ not in set(sample)]
    for some, timed in ((sample, True), (rest, False)):
        for start in range(0, len(some), _CHUNK):
            yield some[start : start + _CHUNK], timed


def _ask(system: System, texts: Mapping[str, str], timed: bool) -> dict[str, dict[str, Any]]:
    """`Traced.to_json` of each question."""
    pipeline = system.pipeline
    contexts: list[tuple[GroundedContext, bool]] = []
    if timed:
        for text in texts.values():
            _forget(pipeline)
            recalled = system.recalled()
            context = pipeline.ground(text)
            contexts.append((context, system.recalled() == recalled))
    else:
        contexts = [(context, False) for context in pipeline.ground_batch(list(texts.values()))]
    return {id_: _traced(pipeline, *its).to_json() for id_, its in zip(texts, contexts, strict=True)}


def _forget(part: BaseRetriever | BaseDocumentCompressor) -> None:
    """Make models judge anew what they have judged for another system, so that it costs what it costs."""
    if isinstance(part, ProvenceStage):
        part.provence().forget()
    if isinstance(part, Pipeline):
        _forget(part.retriever)
    if isinstance(part, Pipeline | CascadeReranker):
        for stage in part.stages:
            _forget(stage)


def _kind(stage: BaseDocumentCompressor) -> Kind:
    return "prune" if isinstance(stage, Pruner) else "rerank" if isinstance(stage, Reranker) else "other"


def _traced(pipeline: Pipeline, context: GroundedContext, timed: bool) -> Traced:
    kinds: list[Kind] = ["retrieve", *map(_kind, pipeline.stages)]
    steps = tuple(_step(trace, kind, timed) for trace, kind in zip(context.trace, kinds, strict=True))
    before = next((at for at, kind in enumerate(kinds) if kind == "prune"), len(kinds)) - 1
    return Traced(
        steps=steps,
        chosen=steps[before].ids[: pipeline.k],
        shown=tuple(Shown(passage.id, passage.text, passage.spans) for passage in context.passages),
        tokens_retrieved=context.tokens_retrieved,
        tokens_kept=context.tokens_kept,
    )


def _step(trace: StageTrace, kind: Kind, timed: bool) -> Step:
    usage = {name: value for name, value in trace.usage.items() if isinstance(value, int | float | str)}
    return Step(
        name=trace.stage,
        kind=kind,
        ids=tuple(ranked.id for ranked in trace.results),
        scores=tuple(None if ranked.score is None else float(ranked.score) for ranked in trace.results),
        seconds=trace.seconds if timed else None,
        usage=usage,
    )
