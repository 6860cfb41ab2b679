"""The command line. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from ragkit.care.command import tidy
from ragkit.errors import InputError, RagkitError, StoreError
from ragkit.evaluation.eval_command import evaluate
from ragkit.evaluation.pruner_command import eval_pruner
from ragkit.evaluation.synthetic.command import make_queries
from ragkit.evaluation.tune_command import tune
from ragkit.mcp_server.command import mcp
from ragkit.progress import progress_bars
from ragkit.serving.command import serve, serve_key
from ragkit.terminal import place, printable, short
from ragkit.training.command import app as training

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ragkit.chains.answer import Answer
    from ragkit.chains.pipeline import Pipeline
    from ragkit.store.base import BaseSnapshot, BaseStore
    from ragkit.store.indexer import IndexReport

app = typer.Typer(
    name="ragkit",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_SNIPPET = 200  # characters of a passage that is only near
_SUFFIXES = 8  # kinds of files left out that are named
_SAMPLE = 200  # passages whose language is looked at
_INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt

Place = Annotated[
    str, typer.Argument(metavar="DIR|URL", help="An index directory or the URL of a store, made by `ragkit index`.")
]
Depth = Annotated[int | None, typer.Option("-k", help="How many passages to answer from; default: the pipeline's, 5.")]
PipelineFile = Annotated[
    Path | None, typer.Option(help="A pipeline as YAML; default: hybrid retrieval, then ragkit's Provence model.")
]
Budget = Annotated[int | None, typer.Option(min=1, help="Token budget of the context.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Conditions = Annotated[
    list[str] | None, typer.Option("--filter", metavar="KEY=VALUE", help="Metadata to match; may be repeated.")
]
EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="Path or hub name of the encoder; default: the packaged all-MiniLM-L6-v2.")
]


@app.callback(invoke_without_command=True)
def without_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Retrieve, rerank, prune and ground: answers from your documents, with exact citations."""
    if version:
        typer.echo(importlib.metadata.version("ragkit"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders to index.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where the index lives.")] = None,
    url: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Instead of --out: a store in an engine, as postgresql://...")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A .gitignore-style pattern; may be repeated.")] = None,
    encoder: EncoderName = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the text, as a name or ISO code; default: english. Fixed at the first run.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Largest passage, in tokens of the encoder; default: 200.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Tokens that neighbouring passages share; default: 0.")] = None,
    text_field: Annotated[str | None, typer.Option(help="The field of a JSON record that holds its text; default: text.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Also index every three characters, from now on, so that grep is fast.")
    ] = False,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Also drop what is indexed from a PATH that is gone, or empty now.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Read and encode with so many processes; after a kill they go on where they were.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Read and encode on a Ray cluster: HOST:PORT, 'auto' for that of this machine, 'local' to start one here.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Bring an index up to date with files and folders; only what changed is read again."""
    from ragkit.bulk.command import chosen_workers, kept_beside
    from ragkit.bulk.index import bulk_index
    from ragkit.corpus.trigrams import check_available
    from ragkit.documents.files import check_paths
    from ragkit.documents.split import SplitSettings
    from ragkit.encoders.languages import iso_code, language_name
    from ragkit.engines.opening import create_store, open_store, store_exists
    from ragkit.indexes.warmup import warm_up
    from ragkit.store.indexer import index_paths
    from ragkit.store.store import bm25_and_dense

    place = str(out) if url is None else url
    if (out is None) == (url is None):
        raise InputError("--out: give either --out DIR or --store URL, where the index lives")
    if exact and url is not None:
        raise InputError("--exact: only an index in a directory has one for exact search; leave it out")
    if out is None and (processes or ray):
        raise InputError("--store: --processes and --ray are for an index in a directory; give --out instead")
    code = None if language is None else iso_code(language)
    if exact:
        check_available()
    with chosen_workers(processes, ray) as workers:
        given = encoder if out is None or workers is None else kept_beside(out, encoder)
        if store_exists(place):
            store = open_store(place, encoder=given)
            if code is not None and code != store.language:
                raise InputError(
                    f"--language: {store.name} was built for {store.language!r}, not {code!r}; index into another one"
                )
        else:
            # before the directory is made, so that a mistake leaves nothing behind
            SplitSettings.of({"size": size, "overlap": overlap})
            check_paths(paths)
            warm_up()  # seconds, once per machine: better here than at the first question
            store = create_store(place, bm25_and_dense(given, language or "english"))
        options: dict[str, Any] = {
            "exclude": exclude or [],
            "size": size,
            "overlap": overlap,
            "text_field": text_field,
            "drop_missing": drop_missing,
        }
        with store, progress_bars(quiet) as bars:
            if exact:
                with store.write() as draft:
                    draft.index_trigrams()
            if workers is None:
                report = index_paths(store, paths, **options, progress=bars("indexing", "files"))
            else:
                report = bulk_index(store, paths, workers, **options, bars=bars)
            other = _other_language(store) if report.added else None
            if other is not None:
                told = f"The text seems to be {other}, and is taken apart by the rules of {language_name(store.language or '')}"
                typer.echo(f"{told}; index it into another place with --language {other}", err=True)
    if as_json:
        _print_json(asdict(report))
    else:
        _print_report(report, store.name if out is None else short(str(out)))


@app.command()
def search(
    directory: Place,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", help="How many passages to return.")] = 10,
    retriever: Annotated[str, typer.Option(help="bm25, dense, hybrid, exact, or another type of retriever.")] = "hybrid",
    filter: Conditions = None,
    encoder: EncoderName = None,
    as_json: AsJson = False,
) -> None:
    """Show the passages that match a query best."""
    from ragkit.chains.config import PipelineConfig, build_pipeline
    from ragkit.chains.pipeline import Pipeline
    from ragkit.retrievers.batched import check_k

    config = PipelineConfig(retriever={"type": retriever}, k=check_k(k))
    documents = build_pipeline(Pipeline, config, _opened(directory, encoder)).invoke(query, filter=_filter(filter))
    if as_json:
        _print_json({"query": query, "hits": [_hit(document) for document in documents]})
    else:
        _print_hits(documents)


@app.command()
def grep(
    directory: Place,
    pattern: Annotated[str, typer.Argument(help="What to look for, character by character.")],
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Upper and lower case are the same.")] = False,
    regex: Annotated[
        bool, typer.Option("--regex", "-E", help="PATTERN is a regular expression of Python; ^ and $ match at every line.")
    ] = False,
    count: Annotated[bool, typer.Option("--count", "-c", help="Only say how many matches there are.")] = False,
    k: Annotated[int | None, typer.Option("-k", help="How many matches to show; default: all.")] = None,
    filter: Conditions = None,
    as_json: AsJson = False,
) -> None:
    """Find an exact string or a regular expression in the passages. Exit codes: 0 found, 1 not found, 2 error."""
    from ragkit.corpus.patterns import Pattern
    from ragkit.engines.opening import open_store
    from ragkit.grep import as_json as matches_as_json
    from ragkit.grep import grep, shown_lines
    from ragkit.retrievers.batched import check_k

    try:
        what = Pattern(pattern, ignore_case, regex)
        with open_store(directory) as store:
            found = grep(store, what, None if k is None else check_k(k), _filter(filter))
    except (RagkitError, OSError) as error:
        raise typer.Exit(_complain(str(error), 2)) from None
    if as_json:
        hits = {} if count else {"hits": matches_as_json(found)}
        _print_json({"pattern": pattern, "matches": found.matches, "passages": found.passages, **hits})
    elif count:
        typer.echo(f"{found.matches} matches in {found.passages} passages")
    else:
        for line in shown_lines(found):
            typer.echo(line)
    raise typer.Exit(0 if found.matches else 1)


@app.command()
def ask(
    directory: Place,
    question: Annotated[str, typer.Argument(help="What to answer.")],
    k: Depth = None,
    config: PipelineFile = None,
    max_tokens: Budget = None,
    filter: Conditions = None,
    encoder: EncoderName = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Give no answer that is less likely than this; 0: always give one. Default: calibrated."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER:NAME", help="A chat model to write the answer; default: the documents' own sentences."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question with cited sentences, verbatim from the documents, or in the words of a chat model."""
    from ragkit.chains.answer import extractive_answer
    from ragkit.chains.confidence import calibration_for

    question = _asked(question)
    if model is None:
        pipeline = _pipeline(directory, config, encoder)
        context = pipeline.ground(question, max_tokens=max_tokens, k=k, filter=_filter(filter))
        answer = extractive_answer(context, calibration=calibration_for(pipeline), abstain_below=abstain_below)
    else:
        from ragkit.chains.answerer import GroundedAnswerer
        from ragkit.llms.named import chat_model
        from ragkit.retrievers.batched import check_k

        llm = chat_model(model)  # a mistake in its name is told before anything slow has begun
        pipeline = _pipeline(directory, config, encoder)
        asked = pipeline.model_copy(update={"k": pipeline.k if k is None else check_k(k), "filter": _filter(filter)})
        answerer = GroundedAnswerer(pipeline=asked, llm=llm, max_tokens=max_tokens, abstain_below=abstain_below)
        answer = answerer.invoke(question)
    if as_json:
        _print_json(_answer_json(answer))
    else:
        _print_answer(answer, budget=(max_tokens or pipeline.max_tokens) is not None, written=model is not None)


@app.command()
def explain(
    directory: Place,
    question: Annotated[str, typer.Argument(help="What to answer.")],
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="Where the page is written.")],
    k: Depth = None,
    config: PipelineFile = None,
    max_tokens: Budget = None,
    filter: Conditions = None,
    encoder: EncoderName = None,
) -> None:
    """Write a page that shows the way of a question: ranks and scores of each stage, what was kept, and the prompt."""
    from ragkit.explain_command import check_page, write_page

    question, page = _asked(question), check_page(html)
    write_page(_pipeline(directory, config, encoder), question, page, k=k, max_tokens=max_tokens, filter=_filter(filter))


@app.command()
def source(
    directory: Place,
    name: Annotated[str | None, typer.Argument(help="The source to print; without it, all sources are listed.")] = None,
) -> None:
    """Print the decoded text that the offsets of a source's citations refer to."""
    from ragkit.engines.opening import open_store

    with open_store(directory) as store:
        if name is None:
            for known in store.read(lambda snapshot: snapshot.sources()):
                typer.echo(printable(known))
            return
        names = name, os.path.abspath(name)
        text = store.read(lambda snapshot: next(filter(None, map(snapshot.source_text, names)), None))
        if text is None:
            raise InputError(f"NAME: {store.name} has no source {name!r}; `ragkit source {store.name}` lists them")
    sys.stdout.buffer.write(text.encode("utf-8"))


app.command("eval")(evaluate)
app.command()(tune)
app.command()(eval_pruner)
app.command("make-queries")(make_queries)
app.command()(tidy)
app.command()(mcp)
app.command()(serve)
app.command("serve-key")(serve_key)
app.add_typer(training, name="train")


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 2 usage, 1 anything else; errors are one line on stderr."""
    try:
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            code = _complain("interrupted; what was published before is unchanged", 1)
    except TyperException as error:
        code = _complain(error.format_message(), 2)
    except InputError as error:
        code = _complain(str(error), 2)
    except BrokenPipeError:  # who reads has seen enough, as in `ragkit grep ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (RagkitError, OSError) as error:
        code = _complain(str(error), 1)
    except Exception as error:
        if os.environ.get("RAGKIT_DEBUG"):
            raise
        code = _complain(f"{type(error).__name__}: {error} (RAGKIT_DEBUG=1 shows where)", 1)
    sys.exit(code or 0)


def _complain(message: str, code: int) -> int:
    typer.echo(f"ragkit: {printable(' '.join(message.split()))}", err=True)
    return code


def _asked(question: str) -> str:
    """The question. Raises `InputError` for a blank one, before anything slow has begun."""
    if not question.strip():
        raise InputError("QUESTION: is blank; say what to look for")
    return question


def _opened(directory: str, encoder: str | None) -> BaseStore:
    """The store to look into. Raises `StoreError` if there is nothing in it."""
    from ragkit.engines.opening import open_store

    store = open_store(directory, encoder=encoder)
    if not len(store):
        store.close()
        raise StoreError(f"{store.name} holds no passages; index files into it first, with ragkit index")
    return store


def _pipeline(directory: str, config: Path | None, encoder: str | None) -> Pipeline:
    from ragkit.chains.config import build_pipeline, read_config
    from ragkit.chains.default import default_config
    from ragkit.chains.pipeline import Pipeline

    settings = None if config is None else read_config(config)
    store = _opened(directory, settings.encoder if settings is not None and encoder is None else encoder)
    return build_pipeline(Pipeline, settings or default_config(store.language), store)


def _filter(entries: list[str] | None) -> dict[str, Any] | None:
    """KEY=VALUE matches the string VALUE, or the number, true, false or null it spells; a source also by its relative path."""
    conditions = []
    for entry in entries or []:
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise InputError(f"--filter takes KEY=VALUE, got {entry!r}")
        choices: list[Any] = [value, os.path.abspath(value)] if key == "source" else [value]
        try:
            spelled = json.loads(value)
        except ValueError:
            pass
        else:
            # what no number in the metadata can equal stays a string
            if isinstance(spelled, int | float | None) and (spelled is None or abs(spelled) < 2**63):
                choices.append(spelled)
        conditions.append({key: {"$in": choices}})
    return {"$and": conditions} if conditions else None


def _hit(document: Document) -> dict[str, Any]:
    from ragkit.documents.provenance import KEY, SCORE_KEY, provenance

    record = provenance(document)
    return {
        "id": document.id,
        "score": document.metadata[SCORE_KEY],
        "source": record.source or document.id,
        "start": record.start,
        "end": record.start + len(document.page_content),
        "text": document.page_content,
        "metadata": {key: value for key, value in document.metadata.items() if key not in (KEY, SCORE_KEY)},
    }


def _answer_json(answer: Answer) -> dict[str, Any]:
    context = answer.context
    return {
        "question": context.question,
        "answer": answer.text,
        "abstained": answer.abstained,
        "confidence": answer.confidence,
        "citations": [
            {key: getattr(citation, key) for key in ("n", "id", "source", "start", "end", "text")}
            for citation in answer.citations
        ],
        "passages": [
            {
                "n": passage.n,
                "id": passage.id,
                "source": passage.source,
                "score": passage.score,
                "text": passage.text,
                "spans": [list(span) for span in passage.spans],
            }
            for passage in context.passages
        ],
        "tokens": {"retrieved": context.tokens_retrieved, "kept": context.tokens_kept},
        "trace": [
            {"stage": stage.stage, "seconds": stage.seconds, "in": stage.entered, "out": stage.left} for stage in context.trace
        ],
    }


def _print_json(value: dict[str, Any]) -> None:
    # the name of a file may hold lone surrogates, for which JSON has the same escapes as Python
    typer.echo(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8"))


def _other_language(store: BaseStore) -> str | None:
    """The language that a sample of the passages seems to be in, if it is not the store's."""
    from ragkit.encoders.languages import language_name, other_language

    def sample(snapshot: BaseSnapshot) -> str:
        positions = snapshot.positions()
        return "\n".join(passage.page_content for passage in snapshot.documents(positions[:: -(-len(positions) // _SAMPLE)]))

    return other_language(store.read(sample), language_name(store.language)) if store.language and len(store) else None


def _print_report(report: IndexReport, place: str) -> None:
    for skipped in report.skipped:
        typer.echo(printable(f"skipped {short(skipped.path)}: {skipped.reason}"), err=True)
    read = f"{report.files} files read" if report.files or report.skipped else "No files to read were found"
    typer.echo(
        f"{read}; {place} now holds {report.passages} passages "
        f"({report.added} added, {report.updated} updated, {report.deleted} deleted; "
        f"{len(report.skipped)} files or records skipped) in {report.seconds:.1f} s"
    )
    if report.left_out:
        most = list(report.left_out.items())[:_SUFFIXES]
        rest = sum(report.left_out.values()) - sum(count for _, count in most)
        named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in most] + [f"{rest} others"] * bool(rest)
        typer.echo(f"{sum(report.left_out.values())} files left out, of types that are not read: {', '.join(named)}")


def _print_hits(documents: list[Document]) -> None:
    from ragkit.documents.provenance import provenance

    if not documents:
        typer.echo("No passage matches.")
    for rank, document in enumerate(documents, 1):
        hit, record = _hit(document), provenance(document)
        where = place(hit["source"], record.line(0, document.page_content), record.page(0))
        typer.secho(f"{rank}. {where}  {hit['score']:.3f}", bold=True)
        typer.echo(_indent(printable(document.page_content)) + "\n")


def _print_answer(answer: Answer, *, budget: bool, written: bool) -> None:
    if answer.abstained:
        from ragkit.chains.answer import nearest

        found = nearest(answer.context)
        no_room = budget and answer.context.tokens_retrieved > 0 and not answer.context.passages
        nothing = "Nothing in these documents seems to answer that." + " Nearest:" * bool(found)
        typer.echo("No sentence fits the token budget." if no_room else nothing)
        for near in found:
            typer.echo(_indent(printable(" ".join(near.text[:_SNIPPET].split()) + "…" * (len(near.text) > _SNIPPET))))
            typer.secho(f"    {place(near.source, near.line, near.page)}", dim=True)
        return
    if written:
        typer.echo(printable(answer.text) + "\n")
        for problem in answer.problems:
            typer.echo(printable(f"ragkit: {problem}"), err=True)
    for citation in answer.citations:
        typer.echo(_indent(printable(citation.text)))
        typer.secho(f"    [{citation.n}] {place(citation.source, citation.line, citation.page)}", dim=True)
    context = answer.context
    saved = 1 - context.tokens_kept / context.tokens_retrieved if context.tokens_retrieved else 0
    typer.echo(
        f"\n{len(context.passages)} passages, {context.tokens_retrieved} tokens retrieved, "
        f"{context.tokens_kept} kept ({saved:.0%} saved)"
    )


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    main()
