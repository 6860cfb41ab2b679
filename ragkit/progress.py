"""Progress bars on stderr, which vanish when all is done; none where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Told = Callable[[int, int | None], None]
"""What is done, of how much in all; None leaves that as it was."""


@contextmanager
def progress_bars(quiet: bool, *more: str | ProgressColumn) -> Iterator[Callable[[str, str], Told | None]]:
    """Makes bars: each says what is done ("indexing") and what it counts ("files"), and is seen once it has been told something.

    `more` are columns at its end. Where it is `quiet`, or stderr is no terminal, there are no bars but None.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda doing, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[what]}", TimeElapsedColumn(), *more)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def bar(doing: str, what: str) -> Told:
            task = bars.add_task(doing, total=None, visible=False, what=what)
            return lambda done, total: bars.update(task, completed=done, total=total, visible=True)

        yield bar


@contextmanager
def progress_bar(quiet: bool, doing: str, what: str) -> Iterator[Told | None]:
    """One such bar, seen from the start."""
    with progress_bars(quiet) as bar:
        told = bar(doing, what)
        if told is not None:
            told(0, None)
        yield told
