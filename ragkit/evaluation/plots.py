"""Small plots as inline SVG, drawn with the colours of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ragkit.chains.page import text

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 24, 44
_BARS = 280  # finer than the eye, and a small page however many questions there are
_SERIES = 8  # colours in the style sheet


class Path(NamedTuple):
    """A system in a plot: its name, and after each stage the cost so far and the quality; cost None is unknown."""

    name: str
    points: Sequence[tuple[float | None, float]]


def quality_against_cost(paths: Sequence[Path], quality: str, cost: str) -> str:
    """Each system as a line from its first stage to its last, which is named; one of unknown cost as a line across."""
    costs = [x for path in paths for x, _ in path.points if x is not None and x > 0]
    values = [y for path in paths for _, y in path.points]
    low, high = _range(values)
    left, right = (math.log10(min(costs)) - 0.1, math.log10(max(costs)) + 0.35) if costs else (0.0, 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(max(x, 1e-6)) - left) / (right - left)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - (y - low) / (high - low) * (
            _HEIGHT - _TOP - _BOTTOM
        )

    parts = [_grid(low, high, left, right), _axes(quality, cost)]
    names: list[str] = []
    taken: list[tuple[float, float]] = []
    for at, path in enumerate(paths):
        colour = f"s{at % _SERIES}"
        known = [place(x, y) for x, y in path.points if x is not None and x > 0]
        if not known:
            _, y = place(1.0, path.points[-1][1])
            parts.append(f'<line class="{colour} across" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            known = [(float(_LEFT), y)]
        else:
            parts.append(f'<polyline class="{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in known)}"/>')
            parts += [f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in known[:-1]]
            x, y = known[-1]
            title = f"{path.name}: {quality} {path.points[-1][1]:.3f}, {path.points[-1][0]:.1f} ms"
            parts.append(f'<circle class="{colour} last" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{text(title)}</title></circle>')
        x, y = _free(known[-1][0] + 9, known[-1][1] + 4, taken)
        taken.append((x, y))
        names.append(f'<text class="{colour} name" x="{x:.1f}" y="{y:.1f}">{text(_short(path.name))}</text>')
    return _svg([*parts, *names], f"{quality} against {cost} of {', '.join(path.name for path in paths)}")


def differences_plot(differences: Sequence[float], name: str) -> str:
    """One bar per question, the best first; of very many questions, as many as can be seen."""
    ordered = sorted(differences, reverse=True)
    if len(ordered) > _BARS:
        ordered = [ordered[at * len(ordered) // _BARS] for at in range(_BARS)]
    height, middle = 120, 60
    largest = max((abs(value) for value in ordered), default=0.0) or 1.0
    step = _WIDTH / max(len(ordered), 1)
    parts = [f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{middle}" y2="{middle}"/>']
    for at, value in enumerate(ordered):
        size = abs(value) / largest * (middle - 4)
        top = middle - size if value > 0 else middle
        if size:
            sign = "better" if value > 0 else "worse"
            place = f'x="{at * step:.2f}" y="{top:.2f}" width="{max(step * 0.85, 0.5):.2f}" height="{size:.2f}"'
            parts.append(f'<rect class="{sign}" {place}/>')
    return _svg(parts, f"differences per question of {name}, from the best to the worst", height)


def _svg(parts: Sequence[str], label: str, height: int = _HEIGHT) -> str:
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(label)}">{"".join(parts)}</svg>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max((high - low) * 0.12, 0.01)
    return low - room, high + room


def _grid(low: float, high: float, left: float, right: float) -> str:
    parts = []
    for value in _ticks(low, high):
        y = _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick end" x="{_LEFT - 7}" y="{y + 4:.1f}">{value:.3g}</text>'
        )
    for power in range(math.floor(left), math.ceil(right) + 1):
        for digit in (1, 2, 5):
            exponent = power + math.log10(digit)
            if left <= exponent <= right:
                x = _LEFT + (exponent - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
                parts.append(
                    f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
                    f'<text class="tick middle" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}">{digit * 10.0**power:g}</text>'
                )
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers."""
    size = 10 ** math.floor(math.log10(high - low))
    step = next(step for step in (size / 5, size / 2, size, size * 2) if (high - low) / step <= 9)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(quality: str, cost: str) -> str:
    return (
        f'<text class="axis-name" x="{_LEFT}" y="15">{text(quality)}</text>'
        f'<text class="axis-name end" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}">{text(cost)}</text>'
    )


def _free(x: float, y: float, taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A place for a name that no other name is at: this one, or one below."""
    while any(abs(x - other) < 90 and abs(y - its) < 13 for other, its in taken):
        y += 13
    return x, y


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
