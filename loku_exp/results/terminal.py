"""Show a run on a terminal: its table, as wide as fits, its notes, and some texts before and after."""

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from loku_exp.results.examples import before_and_after, read_examples
from loku_exp.results.schema import Record
from loku_exp.results.table import Arrows, column_groups, header_and_rows, notes, title
from loku_exp.runtime import distributed

PIPED_WIDTH = 100  # columns, where the output is no terminal
LEAST_WIDTH = 60  # in less no table is readable; a terminal wraps its lines then


def console() -> Console:
    """Return a console for results, which never fails for the terminal's encoding."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    found = Console()
    width = found.width if found.is_terminal else PIPED_WIDTH
    return plain_console(max(width, LEAST_WIDTH))


class _Plain(Console):
    """A console whose reader may end: that is an error of its own here, not an exit of the program."""

    def on_broken_pipe(self) -> None:
        """Say so, in place of ending the program."""
        raise BrokenPipeError


def plain_console(width: int) -> Console:
    """Return a console that takes nothing it is given for markup."""
    return _Plain(width=width, highlight=False, markup=False, emoji=False)


def show(record: Record, folder: Path) -> None:
    """Print the table of a run, some continuations where it has any, and where its files are.

    Of several processes that train one run the first alone speaks.
    """
    if distributed.rank() > 0:
        return
    place = console()
    place.print(title(record), soft_wrap=True)
    for table in tables(record, place.width):
        place.print(table)
    lines = [*notes(record), *before_and_after(read_examples(folder))]
    for line in [*lines, f"files: {folder}"]:
        place.print(line, soft_wrap=True)


def tables(record: Record, width: int) -> list[Table]:
    """Return one table where all columns fit, else one for each group of models that belong together.

    Where a group is too wide still, its arrows lose their distance; a caption says so.

    Args:
        record: of a run.
        width: of the terminal, in characters.
    """
    every = _table(record, list(record.models), "distance")
    if _width(every) <= width:
        return [every]
    made = []
    for heading, names in column_groups(record).items():
        table = _table(record, names, "distance", heading)
        if _width(table) > width:
            table = _table(record, names, "side", heading)
            table.caption = (
                "arrows: which way the reference is; how far, and all columns: results.md"
            )
        made.append(table)
    return made


def _table(record: Record, names: list[str], arrows: Arrows, heading: str = "") -> Table:
    header, rows = header_and_rows(record, names, arrows)
    table = Table(
        title=heading or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column(header[0], overflow="fold")
    for name in header[1:]:
        shown = name.partition("+")[0] if heading else name.replace("+", "\n+")
        table.add_column(shown, justify="right", no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _width(table: Table) -> int:
    """Return the width a table takes without folding."""
    return plain_console(10_000).measure(table).maximum
