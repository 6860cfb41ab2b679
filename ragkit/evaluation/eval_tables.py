"""What `ragkit eval` shows in a terminal and in its report: systems side by side, stage by stage, against the first."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from ragkit.evaluation.collection import Collection
from ragkit.evaluation.measures import parse_measures
from ragkit.evaluation.summary import StageSummary, SystemSummary, Times
from ragkit.evaluation.tables import Table, number

SIGNIFICANT = 0.05
"""Below it, a corrected p-value earns a system its mark."""


def headline(collection: Collection) -> str:
    """One line that says what was measured."""
    known = [f"{len(collection.gold)} of them with gold sentences"] if collection.gold else []
    known += [f"{len(collection.answers)} with answers"] if collection.answers else []
    counts = ", ".join([f"{len(collection.documents)} documents", f"{len(collection.queries)} questions", *known])
    return f"{collection.name} {collection.split}: {counts}"


def tables(systems: Sequence[SystemSummary], measures: Sequence[str]) -> list[Table]:
    """All tables, captioned `title: note`; one that has nothing to say is left out."""
    found = [_systems(systems, measures), _stages(systems, measures)]
    if any(system.context is not None for system in systems):
        found.append(_contexts(systems))
    if len(systems) > 1:
        found.append(_comparisons(systems))
    return found


def _systems(systems: Sequence[SystemSummary], measures: Sequence[str]) -> Table:
    notes = []
    if len(systems) > 1:
        notes.append(
            f"+ and - are significantly better and worse than {systems[0].name}, with p < {SIGNIFICANT} after correction"
        )
    notes += _cut_short(systems, measures)
    caption = ": ".join(["Systems", *(["; ".join(notes)] if notes else [])])
    rows = []
    for system in systems:
        marks = {its.measure: "+" if its.difference > 0 else "-" for its in system.compared if its.corrected < SIGNIFICANT}
        cells = [f"{number(system.measured.overall[measure])}{marks.get(measure, '')}" for measure in measures]
        rows.append((system.name, *cells, *_times(system.times), *_calls(system.stages)))
    return Table(caption, ("system", *measures, "ms p50", "ms p99", "LLM calls", "LLM tokens"), rows)


def _cut_short(systems: Sequence[SystemSummary], measures: Sequence[str]) -> list[str]:
    """Measures that look further down than some systems rank, where others rank more: these lose by it, whatever they find."""
    longest = {system.name: max(map(len, system.rankings.values()), default=0) for system in systems}
    notes = []
    for name, measure in parse_measures(measures).items():
        reach = min(measure.params.get("cutoff", 0), max(longest.values()))
        fewer = [f"{length} passages of {system}" for system, length in longest.items() if length < reach]
        if fewer:
            notes.append(f"{name} counts at most {', '.join(fewer)}, for more are not retrieved there")
    return notes


def _stages(systems: Sequence[SystemSummary], measures: Sequence[str]) -> Table:
    rows = [
        (
            f"{system.name}: {stage_name(at, stage)}",
            *(number(stage.measured.overall[measure]) for measure in measures),
            f"{stage.passages:.1f}",
            number(stage.recall),
            *_times(stage.times),
            *_calls([stage]),
        )
        for system in systems
        for at, stage in enumerate(system.stages, 1)
    ]
    header = ("after", *measures, "passages out", "recall", "ms p50", "ms p99", "LLM calls", "LLM tokens")
    return Table("Stage by stage: what a stage left out ranks below what it put out; recall is of what it put out", header, rows)


def stage_name(at: int, stage: StageSummary) -> str:
    """A stage by its place and name, since two may have one name."""
    return f"{at} {stage.name}"


def _contexts(systems: Sequence[SystemSummary]) -> Table:
    rows = [
        (
            system.name,
            number(its.evidence_chosen),
            number(its.evidence_kept),
            number(its.evidence),
            number(its.answers_chosen),
            number(its.answers),
            f"{its.tokens:.0f}",
            number(its.compression),
        )
        for system in systems
        if (its := system.context) is not None
    ]
    header = (
        "context of",
        "evidence chosen",
        "evidence kept",
        "evidence shown",
        "answer chosen",
        "answer shown",
        "tokens",
        "compression",
    )
    return Table(
        "Context: what a generator is given, as shares of gold sentences, of questions with answers, and of tokens left out",
        header,
        rows,
    )


def _comparisons(systems: Sequence[SystemSummary]) -> Table:
    rows = [
        (
            f"{system.name}, {its.measure}",
            f"{its.difference:+.4f}",
            str(its.better),
            str(its.worse),
            f"{its.p:.4f}",
            f"{its.corrected:.4f}",
        )
        for system in systems
        for its in system.compared
    ]
    header = (f"against {systems[0].name}", "difference", "better", "worse", "p", "p, Holm")
    return Table(
        "Significance: paired randomisation tests, with Holm's correction over the systems compared by a measure", header, rows
    )


def _times(times: Times | None) -> tuple[str, str]:
    return ("-", "-") if times is None else (f"{times.p50:.1f}", f"{times.p99:.1f}")


def _calls(stages: Sequence[StageSummary]) -> tuple[str, str]:
    """Calls and tokens of language models per question; a dash where no stage has one."""
    usages = [stage.usage for stage in stages if "calls" in stage.usage]
    calls = sum(usage["calls"] for usage in usages) if usages else nan
    tokens = sum(usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0) for usage in usages) if usages else nan
    return ("-" if calls != calls else f"{calls:.1f}", "-" if tokens != tokens else f"{tokens:.0f}")
