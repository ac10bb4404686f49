"""TOFU (Maini et al. 2024, arXiv 2401.06121): 200 fictitious authors with 20 questions each.

Data: hub dataset ``locuslab/TOFU`` or a folder of its json-lines files, e.g. ``forget10.json``.
"""

import os
from pathlib import Path
from typing import Literal

from loku_exp.data.qa import QA, QACorpus, wrong_answers
from loku_exp.data.text_files import Row, read_hub, read_rows
from loku_exp.data.tofu_splits import (
    TOFU_AUTHORS,
    Authors,
    author_of,
    check_apart,
    check_questions,
)
from loku_exp.errors import DataError
from loku_exp.runtime.hub import looks_like_a_path
from loku_exp.runtime.knobs import Count

RETAIN_OF = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
HOLDOUT_OF = {"forget01": "holdout01", "forget05": "holdout05", "forget10": "holdout10"}
EVALUATION_SETS = {
    "retain": "retain_perturbed",
    "authors": "real_authors_perturbed",
    "facts": "world_facts_perturbed",
}


def load_tofu(
    *,
    path: str,
    forget_split: str,
    authors: Count | None = None,
    retain_draw: Literal["uniform", "exclude_evaluated"] = "uniform",
    holdout: bool = False,
) -> QACorpus:
    """Load one forget split of TOFU with the retain and perturbed splits that belong to it.

    Args:
        path: a folder of json-lines files, or a hub dataset id.
        forget_split: ``forget01``, ``forget05`` or ``forget10``.
        authors: how many of the 200 are used; None for all. The last 1, 5 or 10 % of them (halves up, at
            least one) are forgotten; the others are the first, among them all that are evaluated.
        retain_draw: ``exclude_evaluated`` leaves the rows of the retain evaluation out of the retain
            set of unlearning; all of them are in it otherwise, as in the official code.
        holdout: read ``holdout01``, 05 or 10 as well: authors that nothing is trained on.

    Raises:
        DataError: a split is missing, empty or malformed, the splits do not belong together, authors
            are too few, or the hub cannot be reached.
    """
    if wrong := problems(path=path, forget_split=forget_split, holdout=holdout):
        raise DataError("\n".join(wrong))
    rows = {split: _rows(path, split) for split in _splits(forget_split, holdout)}
    full = _plain(rows["full"])
    start = _checked_start(path, forget_split, rows, full)
    evaluated = len(rows[EVALUATION_SETS["retain"]]) if retain_draw == "exclude_evaluated" else 0
    kept, first, part = _used(authors, rows, forget_split, start, evaluated)
    return QACorpus(
        target_training=full[:kept] + full[first:],
        reference_training=full[:kept],
        forget=full[first:],
        retain=full[evaluated:kept],
        evaluation={
            "forget": _evaluated(rows[f"{forget_split}_perturbed"], start)[first - len(full) :],
            "retain": _evaluated(rows[EVALUATION_SETS["retain"]], 0),
            "authors": _evaluated(rows[EVALUATION_SETS["authors"]]),
            "facts": _evaluated(rows[EVALUATION_SETS["facts"]]),
            **(_holdout(path, forget_split, rows, full, len(full) - first) if holdout else {}),
        },
        protocol={
            "forget_split": forget_split,
            "retain_split": RETAIN_OF[forget_split],
            "retain_draw": retain_draw,
        }
        | part,
    )


def _plain(rows: list[Row]) -> list[QA]:
    return [
        QA(place, author_of(place), row.text("question"), row.text("answer"))
        for place, row in enumerate(rows)
    ]


def _holdout(
    path: str, forget_split: str, rows: dict[str, list[Row]], full: list[QA], count: int
) -> dict[str, list[QA]]:
    """Return rows of authors that nothing is trained on, as many as are forgotten.

    Raises:
        DataError: they are trained on.
    """
    split = HOLDOUT_OF[forget_split]
    asked = {row.question for row in full}
    found = _plain(rows[split])
    shared = [row.row for row in found if row.question in asked]
    if shared:
        raise DataError(
            f"{path}: row {shared[0]} of {split} is in full, so it is no holdout; set dataset.holdout=false"
        )
    return {"holdout": found[:count]}


def problems(
    *,
    path: str,
    forget_split: str,
    authors: int | None = None,
    retain_draw: str = "uniform",
    holdout: bool = False,
) -> list[str]:
    """Return what is wrong with these knobs, without loading anything from a hub."""
    folder, found = Path(os.path.expanduser(path)), []
    if forget_split not in RETAIN_OF:
        found.append(f"dataset.forget_split={forget_split}: choose one of {', '.join(RETAIN_OF)}")
    if not os.path.isdir(folder) and looks_like_a_path(path):
        found.append(f"dataset.path={path}: no such folder, and not a hub id like owner/name")
    if found:
        return found
    counted = TOFU_AUTHORS[forget_split]
    if os.path.isdir(folder):
        names = _splits(forget_split, holdout)
        missing = [name for name in names if not os.path.lexists(folder / f"{name}.json")]
        if missing:
            lacks = ", ".join(f"{name}.json" for name in missing)
            return [f"dataset.path={path} lacks {lacks}{_beside(folder, missing[0])}"]
        if authors is not None:
            try:
                counted = _counted({name: _rows(path, name) for name in names}, forget_split)
            except DataError as error:
                return [str(error)]
    spare = retain_draw == "exclude_evaluated"
    return [] if authors is None else counted.problems(authors, forget_split, spare)


def _beside(folder: Path, name: str) -> str:
    """Return what a folder has in place of a file, e.g. ``full.jsonl`` or ``full.json.gz``."""
    files = (file.name for file in sorted(folder.iterdir()))
    other = next((file for file in files if file.lower().split(".")[0] == name), None)
    return (
        f"; it has {other}: unpack or rename it to {name}.json, one JSON object a line"
        if other
        else ""
    )


def _used(
    authors: int | None, rows: dict[str, list[Row]], forget_split: str, start: int, evaluated: int
) -> tuple[int, int, dict[str, object]]:
    """Return where in ``full`` used retain rows end and forget rows begin, and what to say of a part."""
    kept, first, part = start, start, {}
    if authors is not None:
        counted = _counted(rows, forget_split)
        if wrong := counted.problems(authors, forget_split, spare=evaluated > 0):
            raise DataError("\n".join(wrong))
        kept, first = counted.slices(authors, forget_split)
        part = {"authors": authors, "label": f"TOFU, {authors} of {counted.total} authors"}
    if evaluated >= kept:
        raise DataError(
            f"dataset.retain_draw=exclude_evaluated leaves no row to retain: all {kept} are evaluated; "
            "use retain_draw=uniform"
        )
    return kept, first, part


def _splits(forget_split: str, holdout: bool = False) -> list[str]:
    names = ["full", forget_split, RETAIN_OF[forget_split], f"{forget_split}_perturbed"]
    return [*names, *EVALUATION_SETS.values(), *([HOLDOUT_OF[forget_split]] if holdout else [])]


def _counted(rows: dict[str, list[Row]], forget_split: str) -> Authors:
    names = ("full", forget_split, EVALUATION_SETS["retain"])
    return Authors.counted(*(len(rows[name]) for name in names))


def _rows(path: str, split: str) -> list[Row]:
    folder = Path(os.path.expanduser(path))
    if os.path.isdir(folder):
        return read_rows(folder / f"{split}.json")
    instead = "give a folder that holds TOFU's json-lines files: dataset.path=DIR"
    rows = list(read_hub(path, split, instead))
    if not rows:
        raise DataError(f"{path}:{split} has no rows")
    return rows


def _checked_start(path: str, forget_split: str, rows: dict[str, list[Row]], full: list[QA]) -> int:
    """Return where the forget set begins in ``full``.

    Raises:
        DataError: the splits do not belong together, or what is forgotten is also retained.
    """
    first = max(0, len(full) - len(rows[forget_split]))
    retain, retain_perturbed = RETAIN_OF[forget_split], EVALUATION_SETS["retain"]
    evaluated = full[:first][: len(rows[retain_perturbed])]
    for split, expected, what in (
        (forget_split, full[first:], f"the last {len(rows[forget_split])} rows of full"),
        (retain, full[:first], f"full without {forget_split}"),
        (f"{forget_split}_perturbed", full[first:], forget_split),
        (retain_perturbed, evaluated, f"the first rows of {retain}"),
    ):
        check_questions(path, split, rows[split], expected, what)
    check_apart(full[first:], full[:first], path)
    return first


def _evaluated(rows: list[Row], first: int | None = None) -> list[QA]:
    """Return a perturbed split.

    Args:
        rows: of the split.
        first: place of its first row in ``full``, from which the authors follow. Without one the rows
            are of no author, and where they have no paraphrase, the answer stands for it (official).
    """
    paraphrased = first is not None or any("paraphrased_answer" in row.values for row in rows)
    return [
        QA(
            row=number,
            group=f"row {number}" if first is None else author_of(first + number),
            question=row.text("question"),
            answer=row.text("answer"),
            paraphrase=row.text("paraphrased_answer" if paraphrased else "answer"),
            wrong=wrong_answers(row, "perturbed_answer", row.text("answer")),
        )
        for number, row in enumerate(rows)
    ]
