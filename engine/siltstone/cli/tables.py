"""Tables on standard output, 80 columns wide where it is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["new_table", "show_table"]

_WIDTH: Final = 80


def new_table(**options: Any) -> Table:
    """Return an empty table in the style of all of them."""
    # Its import takes longer than most commands that show none.
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **options)


def show_table(table: Table) -> None:
    """Print a table."""
    from rich.console import Console

    # Names of files may stand in it: nothing is taken for markup, and nothing coloured by guessing.
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH
    # Written by us, since a console ends the process itself where nobody reads the output any more.
    with console.capture() as rendered:
        console.print(table)
    for line in rendered.get().splitlines():
        click.echo(line.rstrip())
