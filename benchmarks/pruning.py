"""The gold evidence that pruners keep for the text they remove: Provence beside similarity, BM25, position and chance.

    python benchmarks/pruning.py                                # the evaluation sets below, and a summary of all: pruning.md
    python benchmarks/pruning.py qed:dev --model PATH           # one set, another model; --model may be repeated
    python benchmarks/pruning.py squad:train hotpotqa:train --no-models --questions 1000

The last one is how the default threshold of `ExtractivePruner` was chosen: its files have the sweeps of the model-free pruners.
A set is a folder below $RAGKIT_DATA (default: ../shared/data) and a split; each writes benchmarks/results/pruning-SET-SPLIT.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ragkit.evaluation.datasets import data_folder
from ragkit.evaluation.pruner_command import baseline_pruners, model_pruners
from ragkit.evaluation.pruner_comparison import Result, evaluate_pruners, summarise
from ragkit.evaluation.pruner_report import markdown, tables
from ragkit.evaluation.pruning import recall_at
from ragkit.evaluation.sentences import SentenceDataset, load_sentences
from ragkit.evaluation.tables import Table, number

ROOT = Path(__file__).resolve().parents[1]
SETS = ("squad:test", "hotpotqa:dev", "qed:dev", "selqa:test", "scifact:test")


def by_setting(dataset: SentenceDataset, results: Sequence[Result]) -> list[str]:
    """The tables again for each `setting` of the questions, where a dataset tells several apart."""
    settings = [question.record.get("setting") for question in dataset.questions]
    parts = []
    for setting in sorted({setting for setting in settings if setting is not None}):
        chosen = [number for number, its_setting in enumerate(settings) if its_setting == setting]
        of_setting = [summarise(result.name, result.scored.of_questions(chosen)) for result in results]
        parts += [f"## Only {setting}: {len(chosen)} questions", *(table.markdown() for table in tables(of_setting, ()))]
    return parts


def at_equal_compression(datasets: Sequence[SentenceDataset], runs: Sequence[Sequence[Result]]) -> Table:
    """Gold sentences that every pruner keeps when it removes as much text as the first one does as it is configured."""
    rows = []
    for dataset, results in zip(datasets, runs, strict=True):
        removed = results[0].configured.removed
        kept = [number(recall_at(result.curve, removed)) for result in results]
        rows.append((f"{dataset.name} {dataset.split}", f"{removed:.0%}", *kept))
    caption = f"Gold sentences kept when the text removed is what {runs[0][0].name} removes as configured"
    return Table(caption, ("dataset", "text removed", *(result.name for result in runs[0])), rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET:SPLIT", help=f"default: {' '.join(SETS)}")
    parser.add_argument("--questions", type=int, help="how many questions to use, from the start of each file; default: all")
    parser.add_argument("--model", action="append", default=[], help="path or hub name; default: the packaged model")
    parser.add_argument("--no-models", action="store_true", help="only the pruners that need no training")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    os.environ.setdefault("RAGKIT_DATA", str(ROOT.parent / "shared" / "data"))
    models = {} if arguments.no_models else model_pruners(arguments.model)
    pruners = {**models, **baseline_pruners()}
    swept = list(models) or ["hybrid", "embedding", "BM25"]
    options = "".join(f" --model {model}" for model in arguments.model)
    options += " --no-models" * arguments.no_models + f" --questions {arguments.questions}" * bool(arguments.questions)
    datasets, runs = [], []
    for name in arguments.sets or SETS:
        folder, _, split = name.partition(":")
        dataset = load_sentences(data_folder(folder), split or None, arguments.questions)
        results = evaluate_pruners(dataset, pruners)
        command = f"`python benchmarks/pruning.py {dataset.name}:{dataset.split}{options}`"
        text = "\n\n".join([markdown(dataset, results, swept).rstrip(), *by_setting(dataset, results), command]) + "\n"
        (arguments.output / f"pruning-{dataset.name}-{dataset.split}.md").write_text(text, "utf-8")
        datasets.append(dataset)
        runs.append(results)
    summary = at_equal_compression(datasets, runs).markdown()
    print(summary)
    if not arguments.sets:
        (arguments.output / "pruning.md").write_text(f"{summary}\n\n`python benchmarks/pruning.py{options}`\n", "utf-8")


if __name__ == "__main__":
    main()
