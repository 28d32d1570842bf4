"""What commands print on standard output: one JSON object for scripts, tables and sentences for people.

Ids and reasons are never cut. A table is as wide as it needs where nothing shows it (a pipe, a file); on a terminal
prose wraps, and where even that is too wide each row becomes a block, a line a cell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from qrelay.progress import on_terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

_UNBOUNDED: Final = 100_000
"""Characters: wider than any table."""


def echo_json(found: Mapping[str, Any]) -> None:
    """The one object that --json prints; times and paths as text."""
    click.echo(json.dumps(found, ensure_ascii=False, default=str))


def show(found: RenderableType, *, file: TextIO | None = None, width: int | None = None) -> None:
    """Print it on `file` (standard output) as wide as the terminal, or where there is none as wide as it is. `width`:
    in characters, instead."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False, markup=False, width=width)
    if width is None and not on_terminal(console):
        unbounded = console.options.update(max_width=_UNBOUNDED)
        console.width = max(1, console.measure(found, options=unbounded).maximum)
    console.print(found)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table, as rich prints it: see the module. `prose`: headings of columns that may wrap between words; `right`:
    of those aligned to the right; `frame`: lines around the cells."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    title: str = ""
    prose: Collection[str] = ()
    right: Collection[str] = ()
    frame: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The table where it fits, else blocks."""
        if self._least() <= options.max_width:
            yield self._table()
            return
        yield from self._blocks()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From what the table needs to what it takes with nothing wrapped."""
        from rich.measure import Measurement

        return Measurement(self._least(), console.measure(self._table(), options=options).maximum)

    def _columns(self) -> Iterator[tuple[str, list[str]]]:
        for place, heading in enumerate(self.headings):
            yield heading, [heading, *(str(row[place]) for row in self.rows)]

    def _least(self) -> int:
        """Characters that the table needs so that no id is broken: words of prose, whole lines of all else."""
        from rich.cells import cell_len

        widths = [
            max(cell_len(part) for text in texts for part in (text.split() if name in self.prose else [text]) or [""])
            for name, texts in self._columns()
        ]
        return sum(widths) + 2 * len(widths) + (len(widths) + 1 if self.frame else 0)

    def _table(self) -> Table:
        from rich.box import HEAVY_HEAD
        from rich.table import Table

        table = Table(title=self.title or None, box=HEAVY_HEAD if self.frame else None)
        for heading in self.headings:
            align = "right" if heading in self.right else "left"
            table.add_column(heading, overflow="fold", no_wrap=heading not in self.prose, justify=align)  # type: ignore[arg-type]  # a literal
        for row in self.rows:
            table.add_row(*row)
        return table

    def _blocks(self) -> Iterator[RenderableType]:
        from rich.text import Text

        if self.title:
            yield Text(self.title, "bold")
        for number, row in enumerate(self.rows):
            if number:
                yield ""
            for heading, cell in zip(self.headings, row, strict=True):
                if str(cell):
                    yield Text.assemble(f"{heading}: " if heading else "", cell, overflow="fold")
