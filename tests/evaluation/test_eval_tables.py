"""What the tables of `ragkit eval` say beside their figures."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ragkit.evaluation.eval_tables import tables
from ragkit.evaluation.measures import Measured, measure_rankings
from ragkit.evaluation.summary import SystemSummary

MEASURES = ("nDCG@10", "R@100", "AP")


def system(name: str, *lengths: int) -> SystemSummary:
    rankings = {f"q{n}": [f"d{at}" for at in range(length)] for n, length in enumerate(lengths)}
    measured: Measured = measure_rankings(rankings, {"q0": {"d0": 1}}, MEASURES)
    return SystemSummary(name, measured, rankings, ())


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ({"bm25": (100, 7), "default": (20, 20)}, {"R@100": "20 passages of default"}),
        ({"bm25": (100,), "default": (20,), "mine": (5,)}, {"nDCG@10": "5 passages of mine", "R@100": "20 passages of default"}),
        ({"bm25": (100, 7), "dense": (3, 150)}, {}),
        ({"bm25": (40,), "dense": (40,)}, {}),  # there are no more documents
        ({"default": (20,)}, {}),  # compared with nothing
        ({"bm25": (0,), "dense": (0,)}, {}),
    ],
)
def test_a_system_that_ranks_less_than_a_measure_counts_is_named(
    lengths: Mapping[str, tuple[int, ...]], said: Mapping[str, str]
) -> None:
    first, *_ = tables([system(name, *its) for name, its in lengths.items()], MEASURES)
    title, _, note = first.caption.partition(": ")
    assert title == "Systems"
    assert {measure for measure in MEASURES if f"{measure} counts" in note} == said.keys()
    for measure, systems in said.items():
        assert f"{measure} counts at most {systems}" in note
