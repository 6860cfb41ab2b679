"""The way of the candidates as a drawing: one row per stage, best first, and one line per candidate (a bump chart)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ragkit.chains.context import StageTrace
from ragkit.chains.moves import Way
from ragkit.chains.page import text

_LEFT, _COLUMN, _TOP, _ROW, _RADIUS = 96, 38, 20, 84, 12


def flow(ways: Sequence[Way], trace: Sequence[StageTrace]) -> str:
    """An SVG drawing without any style of its own: classes say what reached the context, `hit`, and what did not, `miss`."""
    rows = [_places(ways, at) for at in range(len(trace))]
    width = _LEFT + _COLUMN * max((len(places) for places in rows), default=0)
    height = 2 * _TOP + _ROW * (len(trace) - 1)
    names = "".join(
        f'<text class="name" x="0" y="{_y(at)}" dy="0.36em">{text(_short(stage.stage))}</text>' for at, stage in enumerate(trace)
    )
    # what is kept is drawn last, over the rest
    lines = "".join(_line(way, rows) for way in sorted(ways, key=lambda way: way.n is not None))
    return (
        f'<svg class="flow" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Ranks of the candidates after each stage, as in the table">{names}{lines}</svg>'
    )


def _places(ways: Sequence[Way], at: int) -> dict[str, int]:
    """Where a candidate stands in the row of a stage: among those that are drawn, so that no rank leaves a gap."""
    here = sorted((way.steps[at].rank or 0, way.id) for way in ways if way.steps[at].rank is not None)
    return {id: place for place, (_, id) in enumerate(here)}


def _line(way: Way, rows: Sequence[dict[str, int]]) -> str:
    points = [(at, _x(places[way.id]), _y(at)) for at, places in enumerate(rows) if way.id in places]
    half = _ROW / 2
    path = "".join(
        f'<path d="M{x1} {y1}C{x1} {y1 + half} {x2} {y2 - half} {x2} {y2}"/>'
        for (at, x1, y1), (then, x2, y2) in pairwise(points)
        if then == at + 1
    )
    nodes = "".join(
        f'<circle cx="{x}" cy="{y}" r="{_RADIUS}"/>'
        f'<text x="{x}" y="{y}" dy="0.36em" text-anchor="middle">{way.steps[at].rank}</text>'
        for at, x, y in points
    )
    return f'<g class="{"miss" if way.n is None else "hit"}">{path}{nodes}</g>'


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"


def _x(place: int) -> int:
    return _LEFT + _RADIUS + 1 + _COLUMN * place


def _y(row: int) -> int:
    return _TOP + _ROW * row
