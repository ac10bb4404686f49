"""How every plot of a report looks: sizes for A4, colours and markers for the colour-blind."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from loku_exp.report.groups import Arm

# Okabe and Ito, without the yellow that white paper swallows; markers repeat at another period.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
SHADES = (1.0, 0.6, 0.4, 0.25)
WIDTH, COLUMN = 6.7, 3.4  # inches: text of A4 and one of its two columns; 8 pt stay 8 pt in print
TEXT = 8
FORMS = ("png", "svg", "pdf")  # for slides, the page, and papers
# The methods most reports hold have their colour in every report; others take what is left, by name.
USUAL = ("IHL + FILA", "IHL + vanilla", "GD + FILA", "GD + vanilla", "GA + FILA", "GA + vanilla")
STYLE: Any = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "figure.titlesize": TEXT + 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "svg.hashsalt": "loku_exp",
    "text.parse_math": False,  # names are users'
}


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        name: of its files.
        title: for people.
        caption: what it shows and how to read it.
        alt: the same for those who cannot see it.
        svg: the drawing.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes


@dataclass(frozen=True)
class Looks:
    """The colour, marker and dashes of each method, the same in every plot."""

    methods: tuple[str, ...]

    def of(self, method: str) -> dict[str, Any]:
        """Return keyword arguments for ``Axes.plot``."""
        others = sorted(set(self.methods) - set(USUAL))
        place = [*USUAL, *others].index(method)
        return {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": DASHES[place // len(COLOURS) % len(DASHES)],
        }


def variant(arms: Iterable[Arm], arm: Arm) -> dict[str, Any]:
    """Return dashes and a shade that tell settings of one method apart, alike in every panel.

    The setting that most arms have is the full line, and few settings look the same in every method.
    """
    settings = [(a.method, a[3:]) for a in arms]  # recipe and extras
    same = list(dict.fromkeys(setting for method, setting in settings if method == arm.method))
    if len(same) < 2:
        return {}
    every = [setting for setting, _ in Counter(setting for _, setting in settings).most_common()]
    place = (every if len(every) <= len(DASHES) else same).index(arm[3:]) % len(DASHES)
    return {"linestyle": DASHES[place], "alpha": SHADES[place]}


def panels(rows: int, columns: int, height: float = 2.7, **options: Any) -> tuple[Figure, Any]:
    """Return a figure, one panel as wide as a column, several as the text; its axes (rows, columns)."""
    size = (COLUMN if columns == 1 else WIDTH, height * rows)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def legend(figure: Figure, handles: Sequence[Line2D], columns: int = 4) -> None:
    """Put one legend below all panels."""
    unique = {str(handle.get_label()): handle for handle in handles}
    longest = max(map(len, unique), default=1)
    width, height = figure.get_size_inches()
    room = int(17 * width)  # characters of a line
    fits = max(1, min(columns, len(unique), room // (longest + 8)))
    lines = -(-len(unique) // fits)
    figure.set_size_inches(width, height + 0.19 * lines)  # the panels keep their height
    figure.legend(
        handles=list(unique.values()), loc="outside lower center", ncols=fits, frameon=False
    )


def handle(label: str, **look: Any) -> Line2D:
    """Return a line for a legend."""
    return Line2D([], [], label=label, **look)


def finished(figure: Figure, folder: Path, name: str, title: str, caption: str, alt: str) -> Plot:
    """Write a figure in every form of `FORMS`, close it, and return it for the page."""
    file = folder / f"{name}.svg"
    figure.savefig(file, metadata={"Date": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}.png", dpi=300)
    plt.close(figure)
    return Plot(name, title, caption, alt, file.read_bytes())
