"""Kept units to spans, and spans to the shortened text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.documents.model import Unit
from ragkit.documents.spans import inside, join_spans, merge_units


@st.composite
def texts_with_units(draw: st.DrawFn) -> tuple[str, list[Unit], list[bool]]:
    """A text made of words and gaps; each word is a unit, kept or not."""
    text, units = "", []
    for word, gap in draw(
        st.lists(st.tuples(st.text("aé😀日", min_size=1, max_size=4), st.sampled_from(["", " ", "\n", "\r\n\r\n"])))
    ):
        units.append(Unit(len(text), len(text) + len(word)))
        text += word + gap
    keep = draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    return text, units, keep


@given(texts_with_units())
def test_spans_hold_the_kept_units_and_no_other(given: tuple[str, list[Unit], list[bool]]) -> None:
    text, units, keep = given
    spans = merge_units(units, keep)
    assert spans == merge_units(units, np.array(keep, bool))
    inked = {at for unit in units for at in range(unit.start, unit.end)}
    covered = [at for start, end in spans for at in range(start, end)]
    assert covered == sorted(set(covered))
    kept = {at for unit, its_keep in zip(units, keep, strict=True) if its_keep for at in range(unit.start, unit.end)}
    assert inked & set(covered) == kept
    assert all(text[at].isspace() for at in set(covered) - kept)
    assert [inside(unit, spans) for unit in units] == keep
    # as few spans as possible: one per run of kept units
    assert len(spans) == len(re.findall("1+", "".join("01"[its_keep] for its_keep in keep)))


@given(texts_with_units())
def test_the_joined_text_is_the_slices_and_separators(given: tuple[str, list[Unit], list[bool]]) -> None:
    text, units, keep = given
    spans = merge_units(units, keep)
    joined = join_spans(text, spans)
    rest = joined
    for number, (start, end) in enumerate(spans):
        if number:
            dropped = text[spans[number - 1][1] : start]
            assert rest[0] == ("\n" if re.search("[\r\n]", dropped) else " ")
            rest = rest[1:]
        assert rest.startswith(text[start:end])
        rest = rest[end - start :]
    assert rest == ""
    if all(keep):
        assert joined == text.rstrip()


def test_nothing_kept_is_nothing() -> None:
    assert merge_units([], []) == ()
    assert merge_units([Unit(0, 3)], [False]) == ()
    assert join_spans("text", ()) == ""


def test_one_flag_per_unit_is_demanded() -> None:
    with pytest.raises(ValueError, match="longer"):
        merge_units([Unit(0, 3)], [True, False])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))), st.integers(0, 9), st.integers(0, 9))
def test_inside_is_being_covered_by_one_span(spans: list[tuple[int, int]], start: int, end: int) -> None:
    spans = [(a, b) for a, b in spans if a <= b]
    start, end = min(start, end), max(start, end) + 1
    expected = any(set(range(start, end)) <= set(range(a, b)) for a, b in spans)
    assert inside(Unit(start, end), spans) == expected
