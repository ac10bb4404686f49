"""One page over many runs: tables, plots and texts, with nothing fetched from anywhere."""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loku_exp import __version__
from loku_exp.errors import UserError
from loku_exp.report import ends, paths, tables
from loku_exp.report.answer import answer, ordered, ranked
from loku_exp.report.collect import Collection, Run
from loku_exp.report.drawing import FORMS, STYLE, Looks, Plot, mpl
from loku_exp.report.findings import Findings, findings
from loku_exp.report.formats import INTERVAL, write_tables
from loku_exp.report.frame import words_of
from loku_exp.report.groups import Group, group_runs
from loku_exp.report.matched import matched
from loku_exp.report.tables import Table
from loku_exp.results.examples import Sample, read_examples, shown_texts
from loku_exp.runtime.whole_files import write_text

PAGE = "report.html"
WIDTH = 280  # characters of a text that are shown
SAMPLED = {"forget": 3, "retain": 2}
PLOTS = {
    "front": ends.front,
    "path": paths.path,
    "ranks": ends.over_ranks,
    "layers": ends.over_layers,
    "compute": paths.compute,
    "curves": paths.curves,
}


@dataclass
class Section:
    """What the page shows of one group."""

    anchor: str
    group: Group
    answer: str
    tables: list[Table]
    plots: list[Plot]
    absent: list[str]
    sampled: str
    samples: list[tuple[str, Sample]]


def write_report(found: Collection, runs: list[Run], root: Path, folder: Path) -> list[Path]:
    """Write page, tables and plots.

    Args:
        found: everything under the folder that was read.
        runs: those of it that are wanted.
        root: the folder that was read.
        folder: where to write; made where it is not there.

    Returns:
        The files, the page first.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to {folder}: it cannot be made ({error.strerror})") from error
    groups = group_runs(runs)
    methods = dict.fromkeys(arm.method for group in groups for arm in group.arms.values())
    looks = Looks(tuple(sorted(methods)))
    with mpl.rc_context(STYLE):
        sections = [_section(group, looks, folder, n) for n, group in enumerate(groups, 1)]
    files = write_tables(
        folder, [(s.group.headline, table) for s in sections for table in s.tables]
    )
    only = [run for run in runs if not run.record.unlearned]
    text = _environment(folder).get_template("page.html.j2").render(
        sections=sections, found=found, runs=runs, root=root, version=__version__,
        only=only, measured=[metric for metric in words_of(only).values() if metric.summary],
        toys=sum(run.record.run.toy for run in runs),
        script=Markup(SCRIPT), script_hash=_hash(SCRIPT),
    )  # fmt: skip
    write_text(folder / PAGE, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    drawn = [plot.name for s in sections for plot in s.plots]
    plots = [folder / f"{name}.{end}" for name in drawn for end in FORMS]
    return [folder / PAGE, *files, *plots]


def _section(group: Group, looks: Looks, folder: Path, number: int) -> Section:
    found = findings(group)
    plots: list[Plot] = []
    absent: list[str] = []
    for name, draw in PLOTS.items():
        plot = draw(found, looks, folder, f"{number}-{name}")
        (absent if isinstance(plot, str) else plots).append(plot)  # type: ignore[arg-type]
    level, averaged = matched(found), tables.means(found)
    shown = [ordered(found), *averaged[:2]]
    if isinstance(level, str):
        absent.append(level)
    else:
        shown.append(level)
    # The paper's way comes last of the means: it compares methods on different sets.
    further = tables.further_models(found)
    shown += [*averaged[2:], *([further] if further else []), tables.all_runs(found)]
    absent += [f"{table.title}: no run to average" for table in shown if not len(table.cells)]
    shown = [table for table in shown if len(table.cells)]
    run, texts, problem = _samples(found)
    absent += [problem] if problem else []
    label = group.label(group.arms[run.folder])
    return Section(f"g{number}", group, answer(found), shown, plots, absent, label, texts)


def _samples(found: Findings) -> tuple[Run, list[tuple[str, Sample]], str | None]:
    """Return the run of the best arm with its texts, or why there are none."""
    run = found.group.by_arm()[ranked(found)[0]][0]
    try:
        rows = read_examples(run.folder)
    except UserError as error:
        return run, [], f"texts before and after: {error}"
    texts = [
        (name, text) for name, count in SAMPLED.items() for text in shown_texts(rows, name, count)
    ]
    return run, texts, None if texts else "texts before and after: no generations in examples.jsonl"


def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["strong"] = _strong
    environment.filters["data_uri"] = _data_uri
    environment.filters["cut"] = _cut
    environment.filters["folded"] = _folded
    environment.filters["link"] = lambda run: _link(run, folder)
    return environment


def _strong(text: str) -> Markup:
    """Return a text, escaped, with ``**words**`` in bold."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))


def _folded(cell: str) -> Markup:
    """Return a cell, escaped, with its interval on a line of its own."""
    return Markup(INTERVAL.sub(r"\1\2 <small>[\3, \4]</small>", str(escape(cell))))


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _cut(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= WIDTH else shown[:WIDTH] + "…"


def _link(run: str, folder: Path) -> str:
    """Return the way from the page to the folder of a run."""
    return quote(os.path.relpath(run, folder), errors="surrogateescape") + "/"


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
"""Sorting and filtering of tables; the page runs this script alone, whatever a text in it holds."""
