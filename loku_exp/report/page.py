"""One page over many runs: tables, plots and texts, with nothing fetched from anywhere."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loku_exp import __version__
from loku_exp.errors import UserError
from loku_exp.report import answer, ends, matched, means, paths, tables
from loku_exp.report.collect import Collection, Run
from loku_exp.report.drawing import STYLE, Looks, Plot, mpl
from loku_exp.report.formats import write_tables
from loku_exp.report.groups import Arm, Group, group_runs
from loku_exp.report.samples import Sample, samples
from loku_exp.report.tables import Table
from loku_exp.runtime.cache import write_text

PAGE = "report.html"
PLOTS = {
    "front": ends.front,
    "quality_and_utility": paths.quality_and_utility,
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
    summary: Table
    tables: list[Table]
    plots: list[Plot]
    absent: list[str]
    sampled: str
    samples: list[Sample]


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
    written = write_tables(
        folder, [(s.group.headline, table) for s in sections for table in [s.summary, *s.tables]]
    )
    only = [run for run in runs if not run.unlearned]
    text = _environment().get_template("page.html.j2").render(
        sections=sections, found=found, runs=runs, only=only, root=root, version=__version__,
        evaluated=_evaluated(only), toys=sum(run.record.run.toy for run in runs),
    )  # fmt: skip
    write_text(folder / PAGE, text)
    plots = [
        folder / f"{plot.name}.{end}"
        for s in sections
        for plot in s.plots
        for end in ("png", "svg")
    ]
    return [folder / PAGE, *written, *plots]


def _section(group: Group, looks: Looks, folder: Path, number: int) -> Section:
    plots: list[Plot] = []
    absent: list[str] = []
    for name, draw in PLOTS.items():
        plot = draw(group, looks, folder, f"{number}-{_slug(group)}-{name}")
        (absent if isinstance(plot, str) else plots).append(plot)  # type: ignore[arg-type]
    success = tables.success(group)
    if success is None:
        absent.append("success rates: no stop rule, and no reference to be told apart from")
    level = matched.matched(group)
    averaged = means.means(group)
    shown = [table for table in [success, averaged[0], *averaged[1:2]] if table]
    if isinstance(level, str):
        absent.append(level)
    else:
        shown.append(level)
    # The paper's way comes last of the means: it compares methods on different sets.
    shown += [*averaged[2:], tables.all_runs(group)]
    run, texts, problem = _samples(group)
    if problem:
        absent.append(problem)
    return Section(
        f"g{number}", group, answer.answer(group), answer.summary(group), shown, plots, absent,
        group.label(group.arms[run.folder]), texts,
    )  # fmt: skip


def _samples(group: Group) -> tuple[Run, list[Sample], str | None]:
    """Return the run of the best arm with its texts, or why there are none."""
    arms: dict[Arm, list[Run]] = group.by_arm()
    run = arms[answer.ranked(group, arms)[0]][0]
    try:
        texts = samples(run)
    except UserError as error:
        return run, [], f"texts before and after: {error}"
    return run, texts, None if texts else "texts before and after: no generations in examples.jsonl"


def _evaluated(only: list[Run]) -> list[list[str]]:
    return [
        [run.record.run.id, run.record.run.choices["model"], run.record.run.choices["dataset"],
         str(run.record.protocol.get("forget_split", "")), run.record.run.label, run.folder.name]
        for run in only
    ]  # fmt: skip


def _slug(group: Group) -> str:
    return re.sub(r"[^a-z0-9]+", "-", group.headline.lower()).strip("-")[:48].strip("-")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["strong"] = _strong
    environment.filters["data_uri"] = _data_uri
    return environment


def _strong(text: str) -> Markup:
    """Return a text, escaped, with ``**words**`` in bold."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
