"""`ragkit eval`: pipelines over a test collection, stage by stage, beside each other and beside runs of others."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragkit.caches import cache_home
from ragkit.errors import InputError
from ragkit.progress import progress_bars
from ragkit.terminal import printable

if TYPE_CHECKING:
    from ragkit.evaluation.collection import Collection
    from ragkit.evaluation.summary import SystemSummary


def evaluate(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="A folder of data, its name below $RAGKIT_DATA, or an id of ir_datasets.")
    ],
    split: Annotated[str | None, typer.Option(help="Default: test, else dev, else the first by name.")] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A pipeline as YAML, or bm25, dense, hybrid or default (ragkit's own); may be repeated. Default: these.",
        ),
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A TREC run of another system to compare; may be repeated.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A measure by its name in ir-measures; may be repeated. Default: nDCG@10, R@100 and MRR@10."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only that many questions, from the start; default: all.")] = None,
    alone: Annotated[
        int | None,
        typer.Option(min=0, help="Questions asked one at a time, and so timed; the others go in batches. Default: 50."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the dataset, as a name or ISO code; default: english, or the --index's.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An index that holds the dataset's documents; it is only read.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where indexes, answers and finished questions are kept; default: ~/.cache/ragkit/eval."
        ),
    ] = None,
    runs_out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a TREC run of every system there.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report there, one page with all in it.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure what every stage of a pipeline is worth, and costs. An evaluation that was interrupted goes on where it was."""
    from rich.progress import TimeRemainingColumn

    from ragkit.documents.provenance import content_id
    from ragkit.evaluation.collection import load_collection
    from ragkit.evaluation.eval_report import eval_report
    from ragkit.evaluation.experiment import ALONE, run_systems
    from ragkit.evaluation.finished import Finished
    from ragkit.evaluation.indexed import open_or_build, published
    from ragkit.evaluation.measures import MEASURES, parse_measures
    from ragkit.evaluation.runs import check_id, read_run, write_run
    from ragkit.evaluation.summary import as_json as described
    from ragkit.evaluation.summary import summarise
    from ragkit.evaluation.systems import BUILT_IN, Systems, built_in, read_configs

    # all that can be wrong is found before anything takes long
    if html is not None and html.is_dir():
        raise InputError(f"--html: {html} is a folder; name a file")
    if runs_out is not None and runs_out.is_file():
        raise InputError(f"--runs-out: {runs_out} is a file; name a folder")
    measures = list(metric or MEASURES)
    parse_measures(measures)
    configs = read_configs(config) if config else dict.fromkeys(BUILT_IN)
    others = _named(run or [], configs)
    rankings = {name: read_run(path) for name, path in others.items()}
    collection = load_collection(dataset, split, limit)
    for name, its in rankings.items():
        _check_run(its, collection, others[name])
    if runs_out is not None:
        for what, ids in (("question", collection.queries), ("document", collection.documents)):
            for id_ in ids:
                check_id(id_, what)
    for option, folder in (("--html", html and html.parent), ("--runs-out", runs_out)):
        if folder is not None:
            _make(folder, option)
    home = cache or cache_home() / "eval"
    with progress_bars(quiet, "left", TimeRemainingColumn()) as progress:
        systems = Systems(
            collection.digest if index is None else content_id(collection.digest, published(index)),
            partial(open_or_build, collection, home, index, language, progress("encoding", "documents")),
            home / "answers.sqlite",
        )
        own = built_in(systems.store().language) if None in configs.values() else {}
        chosen = [systems.make(name, its or own[name]) for name, its in configs.items()]
        finished, told = Finished(home / "results"), progress("asking", "questions")
        runs = run_systems(collection.queries, chosen, alone=ALONE if alone is None else alone, finished=finished, progress=told)
    summaries = summarise(collection, runs, rankings, measures)
    if runs_out is not None:
        for summary in summaries[: len(runs)]:
            write_run(runs_out / f"{summary.name}.trec", summary.rankings, summary.name)
    if html is not None:
        html.write_text(eval_report(collection, runs, summaries, measures), "utf-8")
    if as_json:
        typer.echo(json.dumps(described(collection, summaries), ensure_ascii=False))
    else:
        _print(collection, summaries, measures)


def _named(paths: Sequence[Path], taken: Container[str]) -> dict[str, Path]:
    """Run files by the name that their system has in the tables."""
    found: dict[str, Path] = {}
    for path in paths:
        name = path.name.removesuffix(".gz")
        name = name.rpartition(".")[0] or name
        if name in taken or name in found:
            raise InputError(f"--run: {path} would be called {name!r}, as another system is; rename the file")
        found[name] = path
    return found


def _make(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option}: cannot make the folder {folder} ({error.strerror or error}); name another place") from None


def _check_run(rankings: Mapping[str, Sequence[str]], collection: Collection, path: Path) -> None:
    if not rankings.keys() & collection.queries.keys():
        example, wanted = next(iter(rankings)), next(iter(collection.queries))
        raise InputError(
            f"--run: {path} answers no question of {collection.name} {collection.split}; "
            f"its questions have ids like {example!r}, not {wanted!r}"
        )


def _print(collection: Collection, summaries: Sequence[SystemSummary], measures: Sequence[str]) -> None:
    from ragkit.evaluation.eval_tables import headline, tables

    found = tables(summaries, measures)
    if not sys.stdout.isatty():
        typer.echo(printable("\n\n".join([headline(collection), *(table.markdown() for table in found)])))
        return
    from rich.console import Console

    console = Console()
    console.print(printable(headline(collection)), markup=False, highlight=False)
    for table in found:
        console.print()
        console.print(table.rich())
