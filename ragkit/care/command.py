"""`ragkit tidy`: what an index could do without, told or deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.terminal import place, printable

if TYPE_CHECKING:
    from ragkit.care.importance import Importance
    from ragkit.care.inspection import Inspection
    from ragkit.store.passages import Passage

_SNIPPET = 100


def tidy(
    directory: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="An index directory or the URL of a store, made by `ragkit index`.")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed; without it, nothing is changed.")] = False,
    quality: Annotated[float, typer.Option(min=0, max=1, help="Passages of lower quality could go; 0: none.")] = 0.3,
    similarity: Annotated[
        float, typer.Option(min=0.5, max=1, help="Passages that share so much of their word sequences count as the same.")
    ] = 0.8,
    feedback: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A log of votes, JSONL or SQLite: also say what passages have been worth.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="How many of each kind to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show what an index could do without: boilerplate, navigation, fragments, and passages that are nearly the same."""
    from ragkit.care.importance import importance
    from ragkit.care.inspection import inspect
    from ragkit.care.votes import read_votes
    from ragkit.engines.opening import open_store
    from ragkit.store.passages import passages

    votes = [] if feedback is None else read_votes(feedback)
    with open_store(directory) as store:
        known = passages(store)
        found = inspect(known, store.language or "english", lowest=quality, similarity=similarity)
        deleted = len(store.delete(found.doomed)) if delete and found.doomed else 0
    worth = importance(votes)
    if as_json:
        typer.echo(json.dumps({**_json(found, worth), "deleted": deleted}, ensure_ascii=False))
        return
    by_id = {passage.id: passage for passage in known}
    for line in [*_lines(found, show), *_worth_lines(worth, by_id, show)]:
        typer.echo(printable(line))
    share = f" of {found.passages} passages ({len(found.doomed) / max(found.passages, 1):.1%})"
    told = f"deleted {deleted}{share}" if delete else f"{len(found.doomed)}{share} could go; --delete deletes them"
    typer.echo(told)


def _json(found: Inspection, worth: Mapping[str, Importance]) -> dict[str, Any]:
    return {
        "passages": found.passages,
        "poor": [
            {
                "id": one.passage.id,
                "source": one.passage.source,
                "quality": round(one.quality, 4),
                "reasons": one.reasons,
                "text": one.passage.text,
            }
            for one in found.poor
        ],
        "duplicates": [{"kept": group.kept.id, "others": [other.id for other in group.others]} for group in found.twins],
        "doomed": found.doomed,
        "feedback": [{"id": id_, **one._asdict()} for id_, one in worth.items()],
    }


def _lines(found: Inspection, show: int) -> Iterator[str]:
    yield f"{len(found.poor)} passages of low quality"
    for one in found.poor[:show]:
        yield f"  {one.quality:.2f}  {_where(one.passage)}  ({', '.join(one.reasons)})"
        yield f"        {_snippet(one.passage)}"
    yield f"{sum(len(group.others) for group in found.twins)} passages nearly the same as another"
    for group in found.twins[:show]:
        yield f"  kept: {_where(group.kept)}  {_snippet(group.kept)}"
        for other in group.others[:show]:
            yield f"        {_where(other)}"


def _worth_lines(worth: Mapping[str, Importance], passages: Mapping[str, Passage], show: int) -> Iterator[str]:
    if not worth:
        return
    yield f"{len(worth)} passages voted on, of which the best and the worst"
    rows = list(worth.items())
    half = (show + 1) // 2
    for id_, one in rows if len(rows) <= 2 * half else [*rows[:half], *rows[len(rows) - half :]]:
        where = _where(passages[id_]) if id_ in passages else f"{id_} (no longer there)"
        yield f"  {one.score:+.2f}  {where}  ({one.questions} questions, mean {one.mean:+.2f})"


def _where(passage: Passage) -> str:
    return place(passage.source, None, None)


def _snippet(passage: Passage) -> str:
    text = " ".join(passage.text.split())
    return text if len(text) <= _SNIPPET else f"{text[:_SNIPPET]}…"
