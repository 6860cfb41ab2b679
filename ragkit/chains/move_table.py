"""The candidates as a table of HTML: where each stage put them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragkit.chains.context import Candidate, GroundedContext, StageTrace
from ragkit.chains.moves import Step, Way, fate
from ragkit.chains.page import position, score, text

SHOWN = 50
"""Number of candidates on the page; retrieval may return thousands."""
_UNFOLDED = 10
"""Number of those in the table before the rest is folded away."""


def move_table(context: GroundedContext, moves: Sequence[Way], names: Mapping[str, str]) -> str:
    """A row per candidate: its rank, move and score at each stage, its text folded away, and what became of it."""
    known = {candidate.id: candidate for candidate in context.candidates}
    heads = "".join(f'<th scope="col">{text(stage.stage)}</th>' for stage in context.trace)
    head = f'<thead><tr><th scope="col" class="first">Candidate</th>{heads}<th scope="col">outcome</th></tr></thead>'
    rows = [_row(way, known.get(way.id), context.trace, names) for way in moves[:SHOWN]]
    tables = [f'<table class="moves">{head}<tbody>{"".join(part)}</tbody></table>' for part in _folded(rows)]
    hidden = len(moves) - len(rows)
    note = f'<p class="soft">{hidden} more, which came less far, are not on this page.</p>' if hidden else ""
    more = f"<details><summary>{len(rows) - _UNFOLDED} more candidates</summary>{tables[1]}</details>" if tables[1:] else ""
    return f"{tables[0]}{more}{note}" if rows else '<p class="soft">Nothing was found.</p>'


def _folded(rows: Sequence[str]) -> list[Sequence[str]]:
    return [part for part in (rows[:_UNFOLDED], rows[_UNFOLDED:]) if part]


def _row(way: Way, candidate: Candidate | None, trace: Sequence[StageTrace], names: Mapping[str, str]) -> str:
    if candidate is None:
        name = f'<span class="id">{text(way.id)}</span>'
        parts: list[str] = []
    else:
        heading = candidate.headings[-1] if candidate.headings else ""
        title = f"{names[candidate.source]}{position(candidate.line, candidate.page)}"
        name = (
            f'<details><summary><span class="id" dir="auto">{text(title)}</span>'
            f'<span class="heading soft" dir="auto">{text(heading)}</span></summary>'
            f'<p class="whole" dir="auto">{text(candidate.text)}</p></details>'
        )
        staged = {stage.stage for stage in trace}
        parts = [f"{part.stage} {part.rank}" for part in candidate.stages if part.stage not in staged]
    cells = "".join(
        _cell(stage.stage, step, before, parts if before is None else [])
        for stage, step, before in zip(trace, way.steps, (None, *way.steps), strict=False)
    )
    outcome = text(fate(way, trace))
    if way.n is not None:
        outcome = f'<a class="n" href="#p{way.n}">[{way.n}] in context</a>'
    return (
        f'<tr class="{"miss" if way.n is None else "hit"}"><th scope="row">{name}</th>{cells}<td class="fate">{outcome}</td></tr>'
    )


def _cell(stage: str, step: Step, before: Step | None, parts: Sequence[str]) -> str:
    label = f'data-label="{text(stage)}"'
    if step.rank is None:
        return f'<td class="none" {label}><span aria-label="not returned">–</span></td>'
    # a stage that gives no score leaves the one before
    new = step.score is not None and (before is None or step.score != before.score)
    scored = f'<span class="score">{score(step.score or 0)}</span>' if new else ""
    origins = f'<span class="parts soft">{text(" · ".join(parts))}</span>' if parts else ""
    return f'<td {label}><span class="rank">{step.rank}</span>{_move(step.moved)}{scored}{origins}</td>'


def _move(moved: int | None) -> str:
    if moved is None:
        return ""
    if moved == 0:
        return '<span class="move same" aria-label="same rank">=</span>'
    mark, kind, word = ("▲", "up", "up") if moved > 0 else ("▼", "down", "down")
    return f'<span class="move {kind}"><span aria-label="{word} {abs(moved)}">{mark}{abs(moved)}</span></span>'
