"""What is said of pruners that were run over a dataset: tables, a file of numbers, and a report with a figure."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ragkit.evaluation.curve import draw_curves
from ragkit.evaluation.pruner_comparison import SHARE, Result
from ragkit.evaluation.pruning import Floats, Point, quantiles, recall_at, sweep
from ragkit.evaluation.sentences import SentenceDataset
from ragkit.evaluation.tables import Table, number

REMOVED = (0.25, 0.5, 0.75)
"""Shares of text removed at which the evidence kept is compared."""

_POINT = ("gold kept", "removed, relevant", "removed, irrelevant", "F1", "F2", "evidence whole")
_GRID = np.array([0.01, 0.05, *(n / 10 for n in range(1, 10)), 0.95, 0.99])
_SCALE = """\
A sentence is kept if its score reaches the threshold. Removed: characters of sentences, averaged over passages with gold
sentences (relevant), without (irrelevant), or over all where neither is said. F1 and F2: of all sentences of all passages.
Evidence whole: questions of which every gold sentence is kept. Gold first: passages with gold sentences in which one of them has
the best score. nDCG@10 and MRR: the passages of each question, by the pruner's passage score or else its best sentence; only
questions with several candidates."""


def headline(dataset: SentenceDataset) -> str:
    """One line that says what was measured."""
    passages = dataset.passages
    relevant = sum(bool(passage.gold) for passage in passages)
    ambiguous = f"; {dataset.left_out} ambiguous rows left out" if dataset.left_out else ""
    return (
        f"{dataset.name} {dataset.split}: {len(dataset.questions)} questions, {len(passages)} passages, "
        f"{relevant} of them with gold sentences{ambiguous}"
    )


def tables(results: Sequence[Result], swept: Collection[str]) -> list[Table]:
    """Three tables with a row per pruner, and the sweep of those named in `swept`.

    For each pruner in `swept`, the last of the three also has a column that compares all others with it, at the share of text
    that it removes as it is configured.
    """
    return [
        Table(
            "As configured",
            ("pruner", *_POINT),
            [(result.name, *_point(result.configured)) for result in results],
        ),
        Table(
            f"At the threshold that keeps {SHARE:.0%} of the gold sentences",
            ("pruner", "threshold", *_POINT),
            [(result.name, number(result.threshold), *_point(result.at_threshold)) for result in results],
        ),
        _ranking(results, [(result.name, result.configured.removed) for result in results if result.name in swept]),
        *(_sweep(result) for result in results if result.name in swept),
    ]


def markdown(dataset: SentenceDataset, results: Sequence[Result], swept: Collection[str]) -> str:
    """The report as text."""
    return "\n\n".join([headline(dataset), *(table.markdown() for table in tables(results, swept)), _SCALE]) + "\n"


def write_report(dataset: SentenceDataset, results: Sequence[Result], swept: Collection[str], directory: str | Path) -> None:
    """Write `report.md`, `sweep.csv` with the sweeps of all pruners, and `curve.svg`; the directory is made if need be."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figure = "curve.svg"
    draw_curves({result.name: result.curve for result in results}, directory / figure, f"{dataset.name} {dataset.split}")
    text = markdown(dataset, results, swept)
    (directory / "report.md").write_text(f"{text}\n![Gold sentences kept against text removed]({figure})\n", "utf-8")
    with (directory / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("pruner", "threshold", *Point._fields))
        for result in results:
            writer.writerows((result.name, threshold, *point) for threshold, point in sweep(result.scored, _thresholds(result)))


def _ranking(results: Sequence[Result], others: Sequence[tuple[str, float]]) -> Table:
    columns = [(f"{removed:.0%} removed", removed) for removed in REMOVED]
    columns += [(f"{removed:.0%} removed, like {name}", removed) for name, removed in others]
    return Table(
        "Ranking of sentences and passages, and gold sentences kept at equal text removed",
        ("pruner", "gold first", "nDCG@10", "MRR", *(name for name, _ in columns)),
        [
            (
                result.name,
                *map(number, (result.first, result.ranking.ndcg, result.ranking.mrr)),
                *(number(recall_at(result.curve, removed)) for _, removed in columns),
            )
            for result in results
        ],
    )


def _sweep(result: Result) -> Table:
    points = sweep(result.scored, _thresholds(result))
    return Table(
        f"{result.name} by threshold",
        ("threshold", "precision", *_POINT),
        [(number(threshold), number(point.precision), *_point(point)) for threshold, point in points],
    )


def _thresholds(result: Result) -> Floats:
    """Round numbers for scores that look like probabilities, else scores of the pruner's own."""
    scores = result.scored.scores
    return _GRID if scores.min() >= 0 and scores.max() <= 1 else quantiles(result.scored)


def _point(point: Point) -> list[str]:
    kept = (point.recall, point.removed_relevant, point.removed_irrelevant, point.f1, point.f2, point.whole)
    return [number(value) for value in kept]
