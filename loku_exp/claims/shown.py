"""Verdicts of registered claims for people: a table, a drawing of the intervals, and files of both."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table as Shown

from loku_exp.claims.judging import Judged, Verdict
from loku_exp.claims.registered import Claim, Claims
from loku_exp.report.drawing import STYLE, Plot, finished, mpl, panels
from loku_exp.results.terminal import console
from loku_exp.runtime.whole_files import write_text

COLOURS = {"yes": "#0072B2", "no": "#D55E00", "undecided": "0.45"}
SIGNS = {"above": ">", "below": "<"}
MOST_TICKS = 5  # of an axis; more of them, with signs and three digits, run into each other
HEADS = ("claim", "verdict", "difference", "claimed", "units", "missed")


def show_verdicts(judged: Judged) -> None:
    """Print the table, and under it each claim in words and what was left out."""
    place = console()
    table = Shown(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in HEADS:
        table.add_column(name, no_wrap=name != "claim", overflow="fold")
    for row in rows_of(judged):
        table.add_row(*row)
    place.print(table)
    for line in notes_of_claims(judged):
        place.print(line, soft_wrap=True)


def rows_of(judged: Judged) -> list[tuple[str, ...]]:
    """Return the table's rows, as `HEADS` names them."""
    return [
        (
            v.claim.id,
            v.says,
            _interval(v),
            _claimed(v.claim),
            str(v.estimate.n if v.estimate else 0),
            str(v.missed),
        )
        for v in judged.verdicts
    ]


def notes_of_claims(judged: Judged) -> list[str]:
    """Return the claims in words, with reason and least difference, and which runs are left out."""
    lines = []
    for verdict in judged.verdicts:
        why = "; ".join(text for text in (verdict.why, _least(verdict), _uneven(verdict)) if text)
        says = verdict.says.upper() + (f" ({why})" if why else "")
        lines.append(f"{verdict.claim.id}: {verdict.claim.claim} {says}")
    lines.append("missed: runs that never come down to the level, or lack the quantity")
    lines.append(f"{judged.runs} runs judged, {len(judged.left_out)} left out")
    left_out = (": ".join(filter(None, item)) for item in judged.left_out.items())
    return lines + [f"left out: {text}" for text in left_out]


def write_verdicts(judged: Judged, claims: Claims, folder: Path) -> list[Path]:
    """Write claims.json, claims.md and the drawing; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "level": claims.level,
        "runs": judged.runs,
        "left_out": judged.left_out,
        "verdicts": [_plain(verdict) for verdict in judged.verdicts],
    }
    write_text(folder / "claims.json", json.dumps(content, indent=1) + "\n")
    table = pd.DataFrame(rows_of(judged), columns=list(HEADS)).to_markdown(index=False)
    notes = "\n".join(f"- {line}" for line in notes_of_claims(judged))
    write_text(folder / "claims.md", f"{table}\n\n{notes}\n")
    files = [folder / "claims.json", folder / "claims.md"]
    drawn = [v for v in judged.verdicts if v.estimate]
    if drawn:
        with mpl.rc_context(STYLE):
            plot = _draw(drawn, folder)
        files += [folder / f"{plot.name}.{end}" for end in ("png", "svg", "pdf")]
    return files


def _draw(verdicts: list[Verdict], folder: Path) -> Plot:
    """Draw each claim's difference with its interval, and the margin, on a scale of its own."""
    figure, axes = panels(len(verdicts), 1, 0.62)
    for axis, verdict in zip(axes[:, 0], verdicts, strict=True):
        axis.locator_params(axis="x", nbins=MOST_TICKS)
        estimate, colour = verdict.estimate, COLOURS[verdict.says]
        if estimate is None:
            continue
        axis.plot([estimate.value], [0], "o", color=colour)
        if estimate.low is not None and estimate.high is not None:
            axis.hlines(0, estimate.low, estimate.high, color=colour)
        edges = {"within": (-verdict.claim.margin, verdict.claim.margin)}
        for margin in edges.get(verdict.claim.side, (verdict.claim.margin,)):
            axis.axvline(margin, color="0.6", linestyle=":")
        axis.margins(x=0.15)
        axis.set_yticks([])
        axis.set_title(f"{verdict.claim.id}: {verdict.says}", loc="left", color=colour)
    caption = (
        "Difference of the two arms with its 95 % interval over units; dotted: what was claimed."
    )
    return finished(figure, folder, "claims", "Registered claims", caption, caption)


def _plain(verdict: Verdict) -> dict[str, Any]:
    plain = asdict(verdict)
    plain["claim"] = verdict.claim.model_dump()
    return plain


def _least(verdict: Verdict) -> str:
    """Return what would have been called true with so wide an interval, in words."""
    estimate, claim = verdict.estimate, verdict.claim
    if estimate is None or estimate.low is None or estimate.low == estimate.high:
        return ""
    if verdict.least is None:
        return "of so wide an interval nothing could have been called true"
    sign = "±" if claim.side == "within" else f"{SIGNS[claim.side]} "
    return f"true from {sign}{verdict.least:.2g} on"


def _uneven(verdict: Verdict) -> str:
    """Return what was done where the arms had other numbers of learning rates, in words."""
    if not verdict.uneven:
        return ""
    if verdict.claim.best:
        return f"left out: {verdict.uneven}, whose arms have not the same two rates or more to choose from"
    return f"at the rates both arms have, since one has more: {verdict.uneven} of its pairs"


def _interval(verdict: Verdict) -> str:
    estimate = verdict.estimate
    if estimate is None:
        return "–"
    if estimate.low is None:
        return f"{estimate.value:+.2g}"
    return f"{estimate.value:+.2g} [{estimate.low:+.2g}, {estimate.high:+.2g}]"


def _claimed(claim: Claim) -> str:
    if claim.side == "within":
        return f"±{claim.margin:g}"
    return f"{SIGNS[claim.side]} {claim.margin:g}"
