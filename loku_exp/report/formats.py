"""Tables as CSV, Markdown and LaTeX files; tables of one name from several groups share a file."""

import re
from pathlib import Path

import pandas as pd

from loku_exp.report.tables import Table
from loku_exp.runtime.cache import write_text

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
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
}


def write_tables(folder: Path, tables: list[tuple[str, Table]]) -> list[Path]:
    """Write every table under its name as csv (plain values), md and tex.

    Args:
        folder: is there.
        tables: headline of the group, and table.

    Returns:
        The files.
    """
    files = []
    for name in dict.fromkeys(table.name for _, table in tables):
        same = [(headline, table) for headline, table in tables if table.name == name]
        rows = pd.DataFrame([row for _, table in same for row in table.data])
        contents = {
            "csv": rows.to_csv(index=False),
            "md": "\n".join(markdown(headline, table) for headline, table in same),
            "tex": "\n".join(latex(headline, table) for headline, table in same),
        }
        for ending, content in contents.items():
            files.append(folder / f"{name}.{ending}")
            write_text(files[-1], content)
    return files


def markdown(headline: str, table: Table) -> str:
    """Return a table with its headline and notes as Markdown."""
    lines = [f"### {_markdown(table.title)}: {_markdown(headline)}", ""]
    if table.rows:
        lines.append("| " + " | ".join(map(_markdown, table.columns)) + " |")
        lines.append("|---" * len(table.columns) + "|")
        lines += ["| " + " | ".join(map(_markdown, row)) + " |" for row in table.rows]
    else:
        lines.append("No run.")
    return "\n".join([*lines, "", *(f"{_markdown(note)}  " for note in table.notes), ""])


def latex(headline: str, table: Table) -> str:
    r"""Return a ``table`` environment; it needs ``\usepackage{booktabs}``."""
    caption = " ".join([f"{table.title}: {headline}.", *table.notes])
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(caption)}}}"]
    if table.rows:
        lines += [rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", r"\toprule"]
        lines.append(" & ".join(map(escape_latex, table.columns)) + r" \\")
        lines.append(r"\midrule")
        lines += [" & ".join(map(escape_latex, row)) + r" \\" for row in table.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, r"\end{table}", ""])


def escape_latex(text: str) -> str:
    """Return a text with everything LaTeX would read as a command made harmless."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _markdown(text: str) -> str:
    return re.sub(r"([|`*_<>\\\[\]])", r"\\\1", " ".join(text.split()))
