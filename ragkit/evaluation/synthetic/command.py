"""`ragkit make-queries`: a dataset for `ragkit eval` from an index of one's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.progress import progress_bar

if TYPE_CHECKING:
    from ragkit.evaluation.synthetic.asking import Asker
    from ragkit.evaluation.synthetic.make import Report
    from ragkit.store.rarity import Rarity

WORTH = (
    "These questions are synthetic: made from sentences, and kept only if hybrid retrieval found the passage among its first "
    "{k}. So recall at {k} of that retriever is 1 by construction, figures are higher than those of real questions, and passages "
    "that were not asked about count as irrelevant. {kind} What they are good for is to compare settings on your own documents; "
    "differences that are small may not hold for real questions."
)
_KINDS = {
    True: "They were written by a language model that saw the passage, whose words they tend to repeat.",
    False: "Every word of them stands in the passage, so BM25 finds nearly all: compare encoders, rerankers and pruners by them, "
    "but nothing with BM25; for that, have them written with --model.",
}


def make_queries(
    directory: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="An index directory or the URL of a store, made by `ragkit index`.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the dataset goes.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many questions.")] = 200,
    model: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER:NAME", help="A chat model to write them; default: the sentences' own words, without one."),
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="A prompt file for the model, in place of ragkit's.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the model's answers are kept; default: FOLDER/answers.sqlite.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="A question stays if hybrid retrieval finds its passage in so many.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed samples other passages.")] = 0,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Path or hub name of the index's encoder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Write questions about your own documents, as a dataset that `ragkit eval` takes."""
    from ragkit.engines.opening import open_store
    from ragkit.evaluation.synthetic.folder import check_free, write_dataset
    from ragkit.evaluation.synthetic.make import make_questions
    from ragkit.retrievers.hybrid import HybridRetriever
    from ragkit.store.passages import passages
    from ragkit.store.rarity import Rarity

    check_free(out)
    with open_store(directory, encoder=encoder) as store, progress_bar(quiet, "writing", "questions") as progress:
        rarity = Rarity(store.snapshot)
        ask = _asker(rarity, model, prompt, cache or out / "answers.sqlite")
        retriever = HybridRetriever(store=store)

        def find(questions: Any) -> list[list[str]]:
            return [[str(document.id) for document in found] for found in retriever.batch(list(questions), k=k)]

        known = passages(store)
        questions, report = make_questions(known, rarity, ask, find, n, seed=seed, progress=progress)
    worth = WORTH.format(k=k, kind=_KINDS[model is not None])
    about = {"model": model, "seed": seed, "k": k, "passages": len(known), **asdict(report), "worth": worth}
    write_dataset(out, known, questions, about)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **about}, ensure_ascii=False))
    else:
        _print(report, out, worth)


def _asker(rarity: Rarity, model: str | None, prompt: Path | None, cache: Path) -> Asker:
    from ragkit.evaluation.synthetic.asking import Keywords, Written
    from ragkit.evaluation.synthetic.pieces import Splitter

    if model is None:
        return Keywords(Splitter(rarity.analyzer, rarity.of_terms))
    from ragkit.llms.adapt import as_llm
    from ragkit.llms.cached import Cached
    from ragkit.llms.named import chat_model

    return Written(Cached(as_llm(chat_model(model)), cache, name=model), prompt or "write_question")


def _print(report: Report, out: Path, worth: str) -> None:
    from ragkit.terminal import printable, short

    for problem in report.problems:
        typer.echo(printable(f"no question: {problem}"), err=True)
    typer.echo(
        f"{report.kept} questions in {short(str(out))}, of {report.tried} passages tried: {report.no_sentence} had no sentence "
        f"to ask about, of {report.no_question} no question could be made, {report.failed} calls failed, "
        f"{report.not_found} questions did not find their passage, {report.repeated} were repeats"
    )
    typer.echo(worth)
