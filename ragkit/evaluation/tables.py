"""Tables that read the same in a terminal, in a report and in a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from ragkit.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A caption, a header, and rows whose first cell is a name."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The caption as a paragraph, and the table below it."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join(
            [self.caption, "", *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)]
        )

    def rich(self) -> RichTable:
        """The same for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        def cell(text: str) -> Text:
            return Text(printable(text))

        table = RichTable(title=cell(self.caption), title_justify="left")
        for n, name in enumerate(self.header):
            table.add_column(cell(name), justify="right" if n else "left")
        for row in self.rows:
            table.add_row(*map(cell, row))
        return table


def number(value: float) -> str:
    """A measure with three decimals; a dash for what there is none of."""
    return f"{value:.3f}" if isfinite(value) else "-"
