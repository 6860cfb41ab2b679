"""Tables for people: names of others cannot rewrite the terminal."""

import io

from rich.console import Console

from ragkit.evaluation.tables import Table


def test_names_cannot_rewrite_the_terminal() -> None:
    table = Table("Systems\x1b[2J", ("system\x9b", "AP"), [("[red]mine\x1b[31m\u202e", "0.5")])
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, color_system=None, width=80).print(table.rich())
    assert "[red]mine[31m" in shown.getvalue()
    assert not any(sign in shown.getvalue() for sign in ("\x1b[2J", "\x1b[31m", "\x9b", "\u202e"))
