"""`ragkit explain`: one page that shows how a question is answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ragkit.errors import InputError
from ragkit.terminal import printable, short

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline
    from ragkit.corpus.filters import Filter


def check_page(path: Path) -> Path:
    """The path, if a file can be written there. Raises `InputError` naming --html, before anything slow has begun."""
    if path.is_dir():
        raise InputError(f"--html: {path} is a folder; name a file, such as {path / 'explain.html'}")
    if not path.parent.is_dir():
        raise InputError(f"--html: there is no folder {path.parent}; make it, or name another place")
    return path


def write_page(
    pipeline: Pipeline,
    question: str,
    path: Path,
    *,
    k: int | None = None,
    max_tokens: int | None = None,
    filter: Filter | None = None,
) -> None:
    """Ground the question, write its page to `path` and say so on stdout. The options are those of `Pipeline.ground`."""
    context = pipeline.ground(question, k=k, max_tokens=max_tokens, filter=filter)
    path.write_text(context.to_html(), "utf-8")
    typer.echo(
        f"{printable(short(str(path)))}: {len(context.candidates)} candidates, {len(context.passages)} passages, "
        f"{context.tokens_retrieved} tokens retrieved, {context.tokens_kept} kept"
    )
