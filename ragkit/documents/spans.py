"""Spans: half-open character ranges of one text, and how kept spans become a shortened text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragkit.documents.model import Unit

Span = tuple[int, int]


def merge_units(units: Sequence[Unit], keep: NDArray[np.bool_] | Sequence[bool]) -> tuple[Span, ...]:
    """Spans of the kept units; neighbours become one span, white space between them included, so each is one verbatim slice."""
    spans: list[Span] = []
    previous_kept = False
    for unit, kept in zip(units, keep, strict=True):
        if kept and previous_kept:
            spans[-1] = (spans[-1][0], unit.end)
        elif kept:
            spans.append((unit.start, unit.end))
        previous_kept = bool(kept)
    return tuple(spans)


def join_spans(text: str, spans: Sequence[Span]) -> str:
    """The slices of `text`, joined by a space within a paragraph and by a line break across one."""
    pieces = [text[start:end] for start, end in spans]
    for at in range(1, len(spans)):
        gap = text[spans[at - 1][1] : spans[at][0]]
        pieces[at] = ("\n" if "\n" in gap or "\r" in gap else " ") + pieces[at]
    return "".join(pieces)


def inside(unit: Unit, spans: Sequence[Span]) -> bool:
    """Whether one of the spans covers the whole unit."""
    return any(start <= unit.start and unit.end <= end for start, end in spans)
