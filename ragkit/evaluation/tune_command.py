"""`ragkit tune`: the configuration that suits a dataset and a goal, chosen on labelled questions."""

from __future__ import annotations

import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragkit.caches import cache_home
from ragkit.errors import InputError
from ragkit.progress import progress_bars

if TYPE_CHECKING:
    from ragkit.evaluation.tuned import Row, Tuned

_TIMED = 10
"""Questions that every part is timed with."""


def tune(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A folder of data, its name below $RAGKIT_DATA, or an id of ir_datasets.")
    ],
    split: Annotated[str, typer.Option(help="The questions to choose on; report on others.")] = "train",
    goal_ms: Annotated[
        float | None, typer.Option(min=0, metavar="MS", help="At most so long for a question; default: as the default pipeline.")
    ] = None,
    goal_calls: Annotated[
        float | None, typer.Option(min=0, metavar="CALLS", help="At most so many calls of a language model for a question.")
    ] = None,
    keep_evidence: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the gold sentences that pruning must keep, where they are known.")
    ] = 0.95,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to write the configuration.")] = Path(
        "ragkit.yaml"
    ),
    reranker: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE[=MODEL]", help="Another reranker to try, such as cross-encoder=FOLDER; may be repeated."),
    ] = None,
    depth: Annotated[
        list[int] | None, typer.Option(min=1, help="How many passages to rerank; may be repeated. Default: 10, 20, 30 and 50.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=3, help="Only that many questions, from the start; default: all.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the dataset, as a name or ISO code; default: english, or the --index's.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An index that holds the dataset's documents; it is only read.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where indexes are kept; default: ~/.cache/ragkit/eval.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Choose retriever, weights, depth, reranker, blend and pruning threshold on labelled questions, and write them as a file."""
    from ragkit.evaluation.collection import load_collection
    from ragkit.evaluation.indexed import open_or_build
    from ragkit.evaluation.tuned import Candidates
    from ragkit.evaluation.tuning import Goal
    from ragkit.evaluation.tuning_work import Workbench

    if out.exists():
        raise InputError(f"--out: {out} exists; name another file, or delete it")
    collection = load_collection(dataset, split, limit)
    home = cache or cache_home() / "eval"
    with (
        progress_bars(quiet) as bar,
        open_or_build(collection, home, index, language, bar("encoding", "documents")) as store,
    ):
        candidates = Candidates(store.language, [_reranker(value) for value in reranker or []], depth or [10, 20, 30, 50])
        bench = Workbench(
            store,
            collection,
            rerankers=candidates.build_rerankers(store),
            pruner=candidates.build_pruner(store),
            progress=bar("judging", "passages"),
        )
        costs = candidates.costs(collection, store, _TIMED)
        usual = costs[candidates.default]
        goal = Goal(
            usual.ms if goal_ms is None and goal_calls is None else inf if goal_ms is None else goal_ms,
            inf if goal_calls is None else goal_calls,
        )
        tuned = candidates.choose(bench, costs, goal, keep_evidence)
    out.write_text(as_yaml(tuned, f"{collection.name} {collection.split}, {len(bench.ids)} questions", index), "utf-8")
    _print(tuned, len(bench.ids), out)


def as_yaml(tuned: Tuned, on: str, index: Path | None = None) -> str:
    """The configuration as a file that `Pipeline.from_config` reads, over the store at `index`, if there is one."""
    import yaml

    fields = tuned.config.model_dump(exclude_none=True) | ({"store": str(index)} if index else {})
    about = f"# chosen by ragkit tune on {on}: nDCG@10 {tuned.chosen.value:.3f}, default {tuned.default.value:.3f}\n"
    return about + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _reranker(value: str) -> dict[str, str]:
    kind, separator, model = value.partition("=")
    return {"type": kind, "model": model} if separator else {"type": kind}


def _print(tuned: Tuned, questions: int, out: Path) -> None:
    from ragkit.evaluation.tables import Table, number

    def cells(name: str, row: Row) -> list[str]:
        return [name, number(row.value), number(row.evidence), f"{row.ms:.1f}", f"{row.calls:.1f}"]

    header = ["candidate", "nDCG@10", "evidence kept", "ms", "LLM calls"]
    about = (
        f"Of what was tried, what nothing beats in every column, on {questions} questions; ms: the median time of a question "
        f"from search to pruning, of {min(_TIMED, questions)} asked alone"
    )
    front = Table(about, header, [cells(row.name, row) for row in tuned.front])
    rows = [cells(f"default: {tuned.default.name}", tuned.default), cells(f"chosen: {tuned.chosen.name}", tuned.chosen)]
    chosen = Table(f"Chosen, and written to {out}", header, rows)
    held_out = (
        f"Chosen without the questions it is judged by: nDCG@10 {tuned.choice.gain:+.3f} over {tuned.choice.start.name} "
        f"(standard error {tuned.choice.error:.3f}; a gain of less than twice that may be chance, more questions make it smaller)"
    )
    if not sys.stdout.isatty():
        typer.echo("\n\n".join([front.markdown(), chosen.markdown(), held_out]))
        return
    from rich.console import Console

    console = Console()
    for table in (front, chosen):
        console.print(table.rich())
    console.print(held_out, markup=False, highlight=False)
