"""`ragkit eval-pruner`: how much evidence a pruner keeps for how much text it removes, beside baselines."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragkit.progress import progress_bar
from ragkit.terminal import printable

if TYPE_CHECKING:
    from ragkit.evaluation.pruner_comparison import Result
    from ragkit.evaluation.sentences import SentenceDataset
    from ragkit.pruners.base import Pruner


def eval_pruner(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A folder of data, or its name below $RAGKIT_DATA.")],
    split: Annotated[str | None, typer.Option(help="Default: test, else dev, else the first by name.")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="Only that many, from the start; default: all.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Path or hub name of a Provence model; may be repeated. Default: the packaged one.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Compare with pruners that need no training.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write report.md, sweep.csv and curve.svg there.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Measure how much gold evidence a pruner keeps for how much text it removes."""
    from ragkit.evaluation.curve import load_matplotlib
    from ragkit.evaluation.datasets import data_folder
    from ragkit.evaluation.pruner_comparison import evaluate_pruners
    from ragkit.evaluation.pruner_report import write_report
    from ragkit.evaluation.sentences import load_sentences

    if output is not None:
        load_matplotlib()
    labelled = load_sentences(data_folder(dataset), split, questions)
    models = model_pruners(model or [])
    pruners = {**models, **(baseline_pruners() if baselines else {})}
    with progress_bar(quiet, "pruning", "questions") as progress:
        results = evaluate_pruners(labelled, pruners, progress)
    _print(labelled, results, models)
    if output is not None:
        write_report(labelled, results, models, output)


def model_pruners(models: list[str]) -> dict[str, Pruner]:
    """Provence pruners by the name that tables show; of the packaged model, if none is named."""
    from ragkit.pruners.provence import ProvencePruner

    if not models:
        return {"Provence": ProvencePruner()}
    return {model: ProvencePruner(model=model) for model in models}


def baseline_pruners() -> dict[str, Pruner]:
    """What a trained pruner is compared with: similarity, term overlap, position, chance."""
    from ragkit.encoders.factory import as_encoder
    from ragkit.evaluation.baselines import KeepAll, Lead, Random
    from ragkit.evaluation.once import EncodeOnce
    from ragkit.pruners.extractive import ExtractivePruner

    encoder = EncodeOnce(as_encoder())
    return {
        "hybrid": ExtractivePruner(encoder=encoder),
        "embedding": ExtractivePruner(scorer="dense", encoder=encoder),
        "BM25": ExtractivePruner(scorer="bm25"),
        "lead": Lead(),
        "random": Random(),
        "keep all": KeepAll(),
    }


def _print(labelled: SentenceDataset, results: Sequence[Result], models: Mapping[str, Pruner]) -> None:
    from ragkit.evaluation.pruner_report import headline, markdown, tables

    if not sys.stdout.isatty():
        sys.stdout.write(printable(markdown(labelled, results, models)))
        return
    from rich.console import Console

    console = Console()
    console.print(printable(headline(labelled)), markup=False, highlight=False)
    for table in tables(results, models):
        console.print()
        console.print(table.rich())
