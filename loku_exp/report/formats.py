"""Tables as CSV, Markdown and LaTeX files; tables of one name from several groups share a file."""

import re
import unicodedata
from pathlib import Path

import pandas as pd

from loku_exp.report.tables import Table
from loku_exp.runtime.whole_files import write_text

TEXT_WIDTH = 345.0  # points, of LaTeX's article on letter paper
LETTER, SEPARATION = 4.1, 8.0  # points: a letter of \\footnotesize, and between two columns
LINE = 11  # characters of a line in the head of a column
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after a line break it would be an argument
    "]": "{]}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "·": r"$\cdot$",
    "•": r"$\bullet$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "–": "--",
    "ß": r"\ss{}",
}
MINUS = re.compile(r"(?<![\w-])-(?=[0-9.])")  # of a number, where a hyphen would be too short
INTERVAL = re.compile(r"(\S+)( [=↑↓])? \[(\S+), (\S+)\]")


def write_tables(folder: Path, tables: list[tuple[str, Table]]) -> list[Path]:
    """Write every table under its name as csv (plain values), md and tex (few columns); return the files.

    Args:
        folder: is there.
        tables: headline of the group, and table.
    """
    files = []
    for name in dict.fromkeys(table.name for _, table in tables):
        same = [(headline, table) for headline, table in tables if table.name == name]
        data = [table.data for _, table in same if len(table.data)]
        contents = {
            "csv": pd.concat(data or [pd.DataFrame(columns=["group"])]).to_csv(index=False),
            "md": "\n".join(markdown_of(headline, table) for headline, table in same),
            "tex": "\n".join(latex_of(*one, n) for n, one in enumerate(same, 1)),
        }
        for ending, content in contents.items():
            files.append(folder / f"{name}.{ending}")
            write_text(files[-1], content.encode("utf-8", "backslashreplace").decode("utf-8"))
    return files


def markdown_of(headline: str, table: Table) -> str:
    """Return a table with its headline and notes as Markdown."""
    cells = table.cells
    if table.details:
        cells = cells.assign(outcome=[
            long if long.startswith(short) else f"{short}: {long}" if long else short
            for short, long in zip(cells["outcome"], table.details, strict=True)
        ])  # fmt: skip
    shown = cells.map(_markdown).rename(columns=_markdown)
    body = shown.to_markdown(index=False, disable_numparse=True) if len(shown) else "No run."
    lines = [f"### {_markdown(table.title)}: {_markdown(headline)}", "", body, ""]
    return "\n".join([*lines, *(f"{_markdown(note)}  " for note in table.notes), ""])


def latex_of(headline: str, table: Table, number: int = 1) -> str:
    r"""Return a ``table`` environment that needs ``\usepackage{booktabs}``, in ASCII alone.

    It has the columns that a paper wants as far as they fit `TEXT_WIDTH`; the CSV has all of them.

    Args:
        headline: of the group.
        table: to write.
        number: of the table among those of one name, for its label.
    """
    if not len(table.cells):
        return f"% {escape_latex(table.title)}: no run\n"
    cells = table.cells.map(_half)
    fitting = _fitting(cells[[name for name in table.paper or cells if name in cells]])
    body = fitting.map(escape_latex).rename(columns=lambda name: _stacked(_lines(name)))
    alignment = "l" + "r" * (len(fitting.columns) - 1)
    inner = body.to_latex(index=False, escape=False, column_format=alignment)
    caption = " ".join([f"{table.title}: {headline}.", *table.notes])
    lines = [f"% all columns: {table.name}.csv", r"\begin{table}"]
    lines += [r"\centering\footnotesize\setlength{\tabcolsep}{4pt}"]
    label = f"tab:{table.name}" + (f"-{number}" if number > 1 else "")
    lines += [
        rf"\caption{{{escape_latex(caption)}}}\label{{{label}}}",
        inner.rstrip(),
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def escape_latex(text: str) -> str:
    """Return a text with everything LaTeX would read as a command made harmless, in ASCII alone."""
    escaped = "".join(LATEX.get(letter, _ascii(letter)) for letter in " ".join(text.split()))
    return MINUS.sub("$-$", escaped)


def _ascii(letter: str) -> str:
    if letter.isascii():
        return letter
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return "".join(LATEX.get(one, one) for one in plain) or "?"  # a wide % is a % in ASCII


def _fitting(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that fit the width of a text together, earlier ones first."""
    left, kept = TEXT_WIDTH, list[str]()
    for name in cells:
        width = max(map(len, [*_lines(name), *cells[name]])) * LETTER + SEPARATION
        if not kept or width <= left:
            kept.append(name)
            left -= width
    return cells[kept]


def _lines(name: str) -> list[str]:
    """Return a column's head as lines, so that it is hardly wider than its numbers."""
    lines = [""]
    for word in name.split():
        fits = len(lines[-1]) + len(word) < LINE
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
    return [line for line in lines if line]


def _stacked(lines: list[str]) -> str:
    shown = r"\\".join(map(escape_latex, lines))
    return rf"\shortstack{{{shown}}}" if len(lines) > 1 else shown


def _half(text: str) -> str:
    """Return a mean with its interval as mean and half width, where it is symmetric and so shorter."""

    def shorter(match: re.Match[str]) -> str:
        """Return one interval so, or as it is."""
        value, arrow, low, high = match.groups("")
        try:
            up, down = float(high) - float(value), float(value) - float(low)
        except ValueError:
            return match[0]
        if low == high:
            return value + arrow
        digits = len(value.partition(".")[2])
        even = abs(up - down) <= 2.1 * 10**-digits
        half = f"{(up + down) / 2:.{digits}f}"
        return f"{value} ± {half}{arrow}" if even and digits else match[0]

    return INTERVAL.sub(shorter, text)


def _markdown(text: str) -> str:
    return re.sub(r"([|`*_<>\\\[\]])", r"\\\1", " ".join(text.split()))
