"""From runs to figures: what each stage of each system is worth and costs, and how the systems compare."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ragkit.documents.spans import join_spans
from ragkit.evaluation.collection import Collection, Gold
from ragkit.evaluation.experiment import Run, Shown, Step, Traced
from ragkit.evaluation.measures import Measured, measure_rankings
from ragkit.evaluation.significance import holm, randomisation_test

_SUMS = ("calls", "prompt_tokens", "completion_tokens", "uncounted", "failures")


class Times(NamedTuple):
    """Milliseconds of questions that were asked one at a time."""

    p50: float
    p99: float
    questions: int


@dataclass(frozen=True)
class StageSummary:
    """A system as it is after one stage."""

    name: str
    kind: str
    measured: Measured
    passages: float
    """Documents that came out, mean over questions."""
    recall: float
    """Share of the relevant documents that came out, mean over questions with relevant documents."""
    times: Times | None
    usage: Mapping[str, float]
    """Calls and tokens of a language model per question, those of recalled answers included; only what the stage reports."""


@dataclass(frozen=True)
class ContextSummary:
    """What a generator would be given, mean over questions; NaN for what is not known of the dataset."""

    evidence: float
    """Share of a question's gold sentences that its context shows. Of one shown in part that part counts, in characters."""
    evidence_chosen: float
    """Share of a question's gold sentences that stand in the passages chosen for it, before pruning and budget."""
    evidence_kept: float
    """Share of these that the context shows."""
    compression: float
    """Share of the chosen passages' tokens that the context leaves out."""
    tokens: float
    """Tokens of the context."""
    answers: float
    """Share of the questions with answers of which the context contains one: whole words, whatever case and white space."""
    answers_chosen: float
    """The same of the chosen passages."""


@dataclass(frozen=True)
class Comparison:
    """A system against the first one."""

    measure: str
    difference: float
    """Mean over questions."""
    better: int
    """Questions at which it is better."""
    worse: int
    p: float
    """Of a paired randomisation test."""
    corrected: float
    """p after Holm's correction over all systems compared by this measure."""


@dataclass(frozen=True)
class SystemSummary:
    """All figures of one system; the one stage of a run that somebody else has made is of the kind "run"."""

    name: str
    measured: Measured
    rankings: Mapping[str, Sequence[str]]
    stages: tuple[StageSummary, ...]
    times: Times | None = None
    context: ContextSummary | None = None
    compared: tuple[Comparison, ...] = ()
    """By measure; empty for the first system, with which the others are compared."""


def summarise(
    collection: Collection, runs: Sequence[Run], others: Mapping[str, Mapping[str, Sequence[str]]], measures: Sequence[str]
) -> list[SystemSummary]:
    """All figures of all systems, and of the rankings of `others` by name."""
    found = [_of_run(collection, run, measures) for run in runs]
    for name, rankings in others.items():
        asked = {id_: list(rankings.get(id_, ())) for id_ in collection.queries}
        measured = measure_rankings(asked, collection.qrels, measures)
        passages, recall = _mean(map(len, asked.values())), _recall(asked, collection.qrels)
        found.append(SystemSummary(name, measured, asked, (StageSummary("run", "run", measured, passages, recall, None, {}),)))
    return _compared(found, measures)


def _of_run(collection: Collection, run: Run, measures: Sequence[str]) -> SystemSummary:
    traced = list(run.traced.values())
    stages = tuple(
        StageSummary(
            name=step.name,
            kind=step.kind,
            measured=measure_rankings(run.rankings(at + 1), collection.qrels, measures),
            passages=_mean(len(its.steps[at].ids) for its in traced),
            recall=_recall({id_: its.steps[at].ids for id_, its in run.traced.items()}, collection.qrels),
            times=_times(its.steps[at].seconds for its in traced),
            usage=_usage([its.steps[at] for its in traced]),
        )
        for at, step in enumerate(traced[0].steps)
    )
    return SystemSummary(
        name=run.name,
        measured=stages[-1].measured,
        rankings=run.rankings(),
        stages=stages,
        times=_times(its.seconds for its in traced),
        context=_context(collection, run.traced),
    )


def _recall(ids: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]) -> float:
    relevant = {question: {id_ for id_, gain in its.items() if gain > 0} for question, its in qrels.items()}
    return _mean(len(its & set(ids[question])) / len(its) for question, its in relevant.items() if its)


def _times(seconds: Iterable[float | None]) -> Times | None:
    known = [1000 * value for value in seconds if value is not None]
    return Times(float(np.percentile(known, 50)), float(np.percentile(known, 99)), len(known)) if known else None


def _usage(steps: Sequence[Step]) -> dict[str, float]:
    names = [name for name in _SUMS if any(name in step.usage for step in steps)]
    return {name: sum(float(step.usage.get(name) or 0) for step in steps) / len(steps) for name in names}


def _context(collection: Collection, traced: Mapping[str, Traced]) -> ContextSummary:
    shown, chosen, kept = [], [], []
    for id_, gold in collection.gold.items():
        its = traced[id_]
        shares = [_share(sentence, its.shown, collection) for sentence in gold]
        held = [share for share, sentence in zip(shares, gold, strict=True) if sentence.document in its.chosen]
        shown.append(sum(shares) / len(gold))
        chosen.append(len(held) / len(gold))
        kept += [sum(held) / len(held)] if held else []
    answered, answered_chosen = [], []
    for id_, answers in collection.answers.items():
        its = traced[id_]
        answered.append(_contains([passage.text for passage in its.shown], answers))
        texts = [collection.documents[document].page_content for document in its.chosen if document in collection.documents]
        answered_chosen.append(_contains(texts, answers))
    return ContextSummary(
        evidence=_mean(shown),
        evidence_chosen=_mean(chosen),
        evidence_kept=_mean(kept),
        compression=_mean(1 - its.tokens_kept / its.tokens_retrieved for its in traced.values() if its.tokens_retrieved),
        tokens=_mean(its.tokens_kept for its in traced.values()),
        answers=_mean(answered),
        answers_chosen=_mean(answered_chosen),
    )


def _share(gold: Gold, shown: Sequence[Shown], collection: Collection) -> float:
    """Of a gold sentence, in characters."""
    for passage in shown:
        if passage.id != gold.document:
            continue
        whole = collection.documents[passage.id].page_content
        if gold.span is None or join_spans(whole, passage.spans) != passage.text:
            return float(_plain(gold.text) in _plain(passage.text))
        start, end = gold.span
        covered = sum(max(0, min(end, its_end) - max(start, its_start)) for its_start, its_end in passage.spans)
        return min(1.0, covered / (end - start))
    return 0.0


def _contains(texts: Sequence[str], answers: Sequence[str]) -> bool:
    plain = [_plain(text) for text in texts]
    return any(_has_words(text, _plain(answer)) for answer in answers for text in plain)


def _has_words(text: str, answer: str) -> bool:
    """Whether it stands there, and not as a part of longer words: "no" is not in "know"."""
    at = text.find(answer)
    while at >= 0:
        end = at + len(answer)
        if not _continues(text[at - 1 : at] + answer[:1]) and not _continues(answer[-1:] + text[end : end + 1]):
            return True
        at = text.find(answer, at + 1)
    return False


def _continues(pair: str) -> bool:
    """Whether two characters are of one word; scripts without case may put no space between words, or join particles to them."""
    return len(pair) == 2 and all(unicodedata.category(char) in ("Ll", "Lu", "Lt", "Nd", "Mn") for char in pair)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _compared(systems: Sequence[SystemSummary], measures: Sequence[str]) -> list[SystemSummary]:
    first, *rest = systems
    found: list[list[Comparison]] = [[] for _ in rest]
    for measure in measures:
        pairs = [differences(first, system, measure) for system in rest]
        p_values = [randomisation_test(list(its.values())) for its in pairs]
        for its_found, its, p, corrected in zip(found, pairs, p_values, holm(p_values), strict=True):
            better, worse = (sum(sign * value > 0 for value in its.values()) for sign in (1, -1))
            its_found.append(Comparison(measure, _mean(its.values()), better, worse, p, corrected))
    return [first, *(replace(system, compared=tuple(its)) for system, its in zip(rest, found, strict=True))]


def differences(first: SystemSummary, system: SystemSummary, measure: str) -> dict[str, float]:
    """By how much a system is better than the first at each question."""
    before, after = first.measured.each[measure], system.measured.each[measure]
    return {question: after.get(question, 0.0) - before.get(question, 0.0) for question in first.rankings}


def as_json(collection: Collection, systems: Sequence[SystemSummary]) -> dict[str, Any]:
    """What `ragkit eval --json` prints. What is not known is null.

    The last stage of each system also has `system`: the times of all stages together, the context, and what the comparison with
    the first system has shown.
    """
    return {"dataset": collection.name, "split": collection.split, "systems": [_system_json(system) for system in systems]}


def _system_json(system: SystemSummary) -> dict[str, Any]:
    stages = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "metrics": _known(stage.measured.overall),
            **_known({"passages": stage.passages, "recall": stage.recall}),
            "ms": stage.times and stage.times._asdict(),
            "usage": dict(stage.usage),
        }
        for stage in system.stages
    ]
    stages[-1]["system"] = {
        "ms": system.times and system.times._asdict(),
        "context": system.context and _known(asdict(system.context)),
        "compared": [asdict(comparison) for comparison in system.compared],
    }
    return {"name": system.name, "metrics": _known(system.measured.overall), "stages": stages}


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known) if known else math.nan
