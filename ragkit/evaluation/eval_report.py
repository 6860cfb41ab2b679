"""An evaluation as one self-contained HTML page: figures, plots, and the questions that went worst, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from ragkit.chains.page import page, text
from ragkit.evaluation.collection import Collection
from ragkit.evaluation.eval_tables import headline, stage_name, tables
from ragkit.evaluation.experiment import Run, Traced
from ragkit.evaluation.plots import Path, differences_plot, quality_against_cost
from ragkit.evaluation.summary import SystemSummary, differences
from ragkit.evaluation.tables import Table, number

WORST = 40
"""Questions that are shown one by one."""
_RELEVANT = 8  # relevant documents shown of each


class _System(NamedTuple):
    summary: SystemSummary
    run: Run | None


def eval_report(collection: Collection, runs: Sequence[Run], systems: Sequence[SystemSummary], measures: Sequence[str]) -> str:
    """The page. `runs` are those that `systems` were summarised from, the first of them in the same order."""
    paired = [_System(system, runs[at] if at < len(runs) else None) for at, system in enumerate(systems)]
    body = [
        f'<header class="wrap"><h1>{text(collection.name)} <span class="soft">{text(collection.split)}</span></h1>',
        f'<p class="note">{text(headline(collection))}. Quality is measured by ir-measures. {_timing(systems)}</p></header>',
        '<main class="wrap" id="main" tabindex="-1">',
        *(_section(table) for table in tables(systems, measures)[:1]),
        _cost_section(systems, measures[0]),
        *(_section(table) for table in tables(systems, measures)[1:]),
        _differences_section(systems, measures[0]),
        _worst_section(collection, paired, measures[0]),
        "</main>",
    ]
    style = (files("ragkit.evaluation") / "assets" / "eval.css").read_text("utf-8")
    return page(f"{collection.name} {collection.split}: evaluation", "\n".join(body), style=style)


def _timing(systems: Sequence[SystemSummary]) -> str:
    asked = max((system.times.questions for system in systems if system.times), default=0)
    if not asked:
        return "No question was timed."
    return f"Times are of {asked} questions that were asked one at a time, on the machine that ran the evaluation."


def _section(table: Table) -> str:
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in table.header)
    rows = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in row[1:])}</tr>'
        for row in table.rows
    )
    title, _, rest = table.caption.partition(": ")
    note = f'<p class="note">{text(rest[:1].upper() + rest[1:])}.</p>' if rest else ""
    return (
        f"<section><h2>{text(title)}</h2>{note}"
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(title)}">'
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _cost_section(systems: Sequence[SystemSummary], measure: str) -> str:
    drawn = quality_against_cost([_path(system, measure) for system in systems], measure, "milliseconds per question (p50)")
    note = "A dot after each stage, with the time of all stages so far. A dashed line is a run of which the cost is not known."
    return f'<section><h2>Quality against cost</h2><p class="note">{note}</p><div class="card">{drawn}</div></section>'


def _path(system: SystemSummary, measure: str) -> Path:
    spent, points = 0.0, []
    for stage in system.stages:
        spent = math.nan if stage.times is None else spent + stage.times.p50
        points.append((None if math.isnan(spent) else spent, stage.measured.overall[measure]))
    return Path(system.name, points)


def _differences_section(systems: Sequence[SystemSummary], measure: str) -> str:
    if len(systems) < 2:
        return ""
    cards = []
    for system in systems[1:]:
        found = list(differences(systems[0], system, measure).values())
        its = next(comparison for comparison in system.compared if comparison.measure == measure)
        equal = len(found) - its.better - its.worse
        said = (
            f"{its.difference:+.4f} on average: better at {its.better}, worse at {its.worse}, equal at {equal} questions; "
            f"p = {its.p:.4f}, {its.corrected:.4f} after correction"
        )
        drawn = differences_plot(found, system.name) if its.better or its.worse else ""
        cards.append(f'<div class="card"><h3>{text(system.name)}</h3><p class="note">{text(said)}</p>{drawn}</div>')
    title, note = f"{measure}, question by question", f"Each bar is a question: how much better than {systems[0].name}, or worse."
    return f'<section><h2>{text(title)}</h2><p class="note">{text(note)}</p><div class="cards">{"".join(cards)}</div></section>'


def _worst_section(collection: Collection, systems: Sequence[_System], measure: str) -> str:
    values = {id_: [system.summary.measured.each[measure].get(id_, 0.0) for system in systems] for id_ in collection.queries}
    worst = sorted(values, key=lambda id_: sum(values[id_]))[:WORST]
    cards = "".join(_question(collection, systems, id_, values[id_]) for id_ in worst)
    note = (
        f"By {measure}, averaged over the systems. A number is the rank of a relevant document among what a stage put out, a "
        "dash says that it is not there; the last column is what the context shows of it."
    )
    return f'<section><h2>Worst questions first</h2><p class="note">{text(note)}</p>{cards}</section>'


def _question(collection: Collection, systems: Sequence[_System], id_: str, values: Sequence[float]) -> str:
    scores = " · ".join(f"{system.summary.name} {number(value)}" for system, value in zip(systems, values, strict=True))
    gains = {document: gain for document, gain in collection.qrels[id_].items() if gain > 0}
    relevant = sorted(gains, key=lambda document: -gains[document])
    more = f'<p class="note">and {len(relevant) - _RELEVANT} more</p>' if len(relevant) > _RELEVANT else ""
    known = "".join(f"<li>{text(answer)}</li>" for answer in collection.answers.get(id_, ())[:3])
    answers = f'<p class="note">Answers:</p><ul class="note">{known}</ul>' if known else ""
    moves = "".join(_moves(collection, system, id_, relevant[:_RELEVANT]) for system in systems)
    return (
        f'<details class="card question"><summary><span class="asked">{text(collection.queries[id_])}</span> '
        f'<span class="soft">{text(id_)} · {text(scores)}</span></summary>{answers}{moves}{more}</details>'
    )


def _moves(collection: Collection, system: _System, id_: str, relevant: Sequence[str]) -> str:
    traced = system.run.traced[id_] if system.run else None
    stages = [step.ids for step in traced.steps] if traced else [tuple(system.summary.rankings[id_])]
    names = [stage_name(at, stage) for at, stage in enumerate(system.summary.stages, 1)]
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in ("relevant document", *names, "context"))
    rows = []
    for document in relevant:
        ranks = "".join(f"<td>{ids.index(document) + 1 if document in ids else '–'}</td>" for ids in stages)
        said = _label(collection, document)
        rows.append(f'<tr><th scope="row">{text(said)}</th>{ranks}<td>{text(_shown(collection, traced, document))}</td></tr>')
    return (
        f'<h3>{text(system.summary.name)}</h3><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{text(system.summary.name)}"><table class="figures"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _label(collection: Collection, document: str) -> str:
    known = collection.documents.get(document)
    if known is None:
        return f"{document}: not in the corpus"
    said = str(known.metadata.get("title") or known.page_content)
    return f"{document}: {said[:70]}{'…' if len(said) > 70 else ''}"


def _shown(collection: Collection, traced: Traced | None, document: str) -> str:
    if traced is None:
        return "–"
    passage = next((passage for passage in traced.shown if passage.id == document), None)
    if passage is None:
        return "nothing kept" if document in traced.chosen else "–"
    known = collection.documents.get(document)
    share = len(passage.text) / max(len(known.page_content), 1) if known else 1.0
    return f"{min(share, 1.0):.0%} of its text"
